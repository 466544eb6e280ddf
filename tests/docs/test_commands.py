"""Every command in the README and the docs runs, or says what it needs that is not here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from neuron_atlas.workflows.config.reader import read_settings
from tests.docs.blocks import PAGES, Block, Command, blocks_of, commands_of, prose_of
from tests.docs.checkout import Checkout, copy_checkout, make_checkout
from tests.workflows.runs import ROOT, composed

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
NOT_RUN_BY_DEFAULT = [block for block in BLOCKS if block.language == "bash" and block.option]
OTHER_PROGRAMS = {"aws", "pip", "python", "ray", "sbatch", "vllm/bin/pip"}
"""Programs that are not of this project and that a command may call."""
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DEMO = Block(ROOT / "README.md", 0, "bash", "neuron-atlas experiment=demo out=out/demo\n")
_FAST, _SLOW = {"", "file"}, {"", "file", "slow", "serves"}


def pages(options: set[str], one_of: set[str]) -> list[object]:
    """The pages with a block to run, for `parametrize`."""
    return [
        pytest.param([block for block in blocks_of(page) if _runs(block, options)], id=page.name)
        for page in PAGES
        if any(_runs(block, one_of) and block.language != "yaml" for block in blocks_of(page))
    ]


def _runs(block: Block, options: set[str]) -> bool:
    is_command = block.language in ("bash", "python")
    return block.option in options and (is_command or block.option == "file")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which a small demo has run."""
    checkout = make_checkout(tmp_path_factory.mktemp("docs"))
    checkout.run(DEMO)
    return checkout


@pytest.fixture
def checkout(demo: Checkout, tmp_path: Path) -> Checkout:
    return copy_checkout(demo, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_a_test_does_with_it(page):
    assert [str(block) for block in blocks_of(page) if not block.is_tagged] == []


@pytest.mark.parametrize("blocks", pages(_FAST, one_of={""}))
def test_the_commands_of_a_page_run(blocks, checkout):
    run_all(blocks, checkout)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", pages(_SLOW, one_of={"slow", "serves"}))
def test_the_slow_commands_of_a_page_run(blocks, checkout):
    run_all(blocks, checkout)


def run_all(blocks: list[Block], checkout: Checkout) -> None:
    """Run the blocks of a page in order. A Python block goes on from those before it."""
    before: list[Block] = []
    for block in blocks:
        if block.option == "serves":
            checkout.serve(block)
            continue
        is_part = block.language == "python" and block.option != "file"
        checkout.run(block, *(before if is_part else ()))
        before += [block] if is_part else []


@pytest.mark.parametrize("block", NOT_RUN_BY_DEFAULT, ids=str)
def test_what_is_not_run_by_default_can_be_called_so(block):
    commands = list(commands_of(block))
    assert commands
    for command in commands:
        check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_make_is_said_to_do_in_a_sentence_it_can_do(page):
    for line in re.findall(r"`((?:[A-Z_]+=\S+ )?make [^`.]+)`", prose_of(page)):
        for command in commands_of(Block(page, 0, "bash", line)):
            check(command)


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "yaml"],
    ids=str,
)
def test_yaml_is_yaml(block):
    assert isinstance(yaml.safe_load(block.text), dict)


def check(command: Command) -> None:
    """Check what can be known of a command without running it."""
    scripts = {script.name for script in entry_points(group="console_scripts")}
    if "--config-dir" in command.arguments:
        assert command.program == "neuron-atlas"  # Its choices are in a folder of the page's own.
    elif command.program == "neuron-atlas":
        read_settings(composed(*first_job(command.arguments)))
    elif command.program == "make":
        check_make(command)
    elif command.program == "python" and command.arguments[0] == "-m":
        assert find_spec(command.arguments[1]), command
    else:
        assert command.program in scripts | OTHER_PROGRAMS, command
    for argument in command.arguments:
        if argument.startswith(("infra/", "conf/", "docs/")):
            assert (ROOT / argument).exists(), command


def check_make(command: Command) -> None:
    """Check that the targets and variables exist, and that CONFIG holds settings."""
    for argument in command.arguments:
        name, is_variable, value = argument.partition("=")
        line = rf"^{re.escape(name)} \?=" if is_variable else rf"^{re.escape(name)}:"
        assert re.search(line, MAKEFILE, re.MULTILINE), f"make has no {name}"
        if name == "CONFIG":
            read_settings(composed(*value.split()))


def first_job(overrides: list[str]) -> Iterator[str]:
    """The overrides of a call; of a sweep those of its first job."""
    parser = OverridesParser.create()
    for text in overrides:
        if text.startswith("--") or text == "...":  # "...": further settings of the reader's.
            continue
        override = parser.parse_override(text)
        if "--multirun" in overrides and override.is_sweep_override():
            text = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        yield text
