"""`neuron-atlas --help` says what every setting means."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neuron_atlas.workflows.atlas import main
from neuron_atlas.workflows.config.settings_help import setting_comments
from tests.workflows.runs import command

_SETTING = re.compile(r"^  (?P<path>[\w.-]+)=(?P<rest>.*)$")


Help = Callable[..., list[str]]


@pytest.fixture
def show_help(
    as_if_called: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Help:
    """Call the program in this process for its help; the lines."""

    def call(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["neuron-atlas", *words, "--help"])
        with pytest.raises(SystemExit, match=r"^0$"):
            main()
        return capsys.readouterr().out.splitlines()

    return call


def test_the_command_shows_what_the_program_shows_in_this_process(show_help: Help) -> None:
    shown = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[1:] == show_help()[1:]  # The first line has its name.


def _settings(lines: list[str]) -> dict[str, str]:
    """Each setting with everything that follows it up to the next one."""
    found: dict[str, str] = {}
    path = ""
    for line in lines:
        if match := _SETTING.match(line):
            path = match["path"]
            found[path] = match["rest"]
        elif path and line.startswith("   "):
            found[path] += f"  {line.strip()}"
        else:
            path = ""
    return found


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("explain=gpt4o", "simulate=vllm", "data=hub", "classify=tested"),
        ("explain=gpt4o-azure", "simulate=clipseg", "data=llava_json", "describe=given"),
        ("simulate=prompt_logprobs", "data=folder", "subject=llava-1.5-7b"),
    ],
    ids=["defaults", "models", "azure", "photographs"],
)
def test_every_setting_has_a_meaning(words: tuple[str, ...], show_help: Help) -> None:
    settings = _settings(show_help(*words))
    assert len(settings) > 60
    silent = [path for path, rest in settings.items() if not re.search(r" {2,}\S", rest)]
    assert not [path for path in silent if ".prices." not in path]


def test_values_are_those_of_the_call(show_help: Help) -> None:
    settings = _settings(show_help("capture.top_n=7", "explain=gpt4o"))
    assert settings["capture.top_n"].startswith("7")
    assert settings["explain.client.model"].startswith("gpt-4o")


def test_settings_of_a_folder_of_ones_own_are_explained(tmp_path: Path, show_help: Help) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "# My photographs.\n_target_: my_package.Mine\nfolder: here # where my photographs are\n",
        encoding="utf-8",
    )
    lines = show_help("data=mine", "--config-dir", str(tmp_path))
    assert "data: My photographs." in lines
    assert "where my photographs are" in _settings(lines)["data.folder"]


def test_comments_are_found_by_path() -> None:
    text = (
        "# What the file is for.\n"
        "plain: 1 # of a line\n"
        "# Above\n"
        "# a setting.\n"
        "above: 2\n"
        "group: # of the group\n"
        "  inner: 'a # b' # of the inner one\n"
        "  silent: 3\n"
        "after: 4 # back at the left\n"
    )
    assert setting_comments(text) == {
        "": "What the file is for.",
        "plain": "of a line",
        "above": "Above a setting.",
        "group": "of the group",
        "group.inner": "of the inner one",
        "after": "back at the left",
    }
