"""Values that Hydra reads only in quotes, text that nothing can hold, and YAML that is wrong."""

from __future__ import annotations

import os
import shlex

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from neuron_atlas.workflows.config.composition import CONF, plain_config, register_resolvers
from neuron_atlas.workflows.config.quoting import quoted_override
from neuron_atlas.workflows.config.reader import check_text
from neuron_atlas.workflows.run.errors import ConfigError
from tests.workflows.config.test_composition import complaint

STRANGE = [
    "/x/a(b)",
    "/x/a=b",
    "/x/a#b",
    "/x/数据",
    "/x/é",
    "/x/a'b",
    '/x/a"b',
    "/x/[a]",
    "~/x",
    "a&b",
]


@pytest.mark.parametrize("value", STRANGE)
def test_the_advice_can_be_pasted(value):
    line = complaint("data=folder", f"data.path={value}")
    _, found, advice = line.partition("; write ")
    assert found, line
    (pasted,) = shlex.split(advice)
    assert complaint("data=folder", pasted, "capture.top_n=x").startswith("capture.top_n:")
    assert _path_of(pasted) == value


@pytest.mark.parametrize(
    "value", [*STRANGE, "a,b", "null", "1e3", "a${b}", 'a\\"b', "a\\", "[a]", " a", "x'\"y", "{"]
)
def test_any_text_has_a_quoted_form(value):
    quoted = quoted_override(f"data.path={value}")
    assert quoted is not None
    (pasted,) = shlex.split(quoted)
    assert _path_of(pasted) == value


def _path_of(override: str) -> str:
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("atlas", overrides=["data=folder", override])
    return plain_config(config)["data"]["path"]


def test_a_list_of_values_is_explained_with_every_meaning():
    line = complaint("data=folder", "data.path=/x/a,b")
    assert "for one text, write 'data.path=\"/x/a,b\"'" in line
    assert "for a list, write 'data.path=[/x/a,b]'" in line
    assert line.endswith("to run once for each value, add --multirun")
    assert "for one text" not in complaint("data=folder,hub")


def test_a_list_in_place_of_text_says_how_text_is_quoted():
    line = complaint("data=folder", "data.path=[a]")
    assert line == "data.path: must be text, not ['a']; quote text: 'data.path=\"...\"'"


@pytest.mark.parametrize("quotes", ["", '"'])
def test_text_that_is_not_utf8_is_refused(quotes):
    value = os.fsdecode(b"a\xffb")  # A file name in another encoding.
    line = complaint("data=folder", f"data.path={quotes}{value}{quotes}")
    assert line.startswith("data.path: ")
    assert "not valid UTF-8; rename the file or folder" in line
    assert line.isascii()


def test_a_null_character_is_refused():
    with pytest.raises(ConfigError, match=r"^out: 'a\\x00b' contains a null character"):
        check_text("out", "a\0b")


@pytest.mark.parametrize("path", ["out", "data.path", "subject.model"])
def test_an_empty_path_is_not_the_current_folder(path):
    assert complaint("data=folder", "data.path=.", f"{path}=").startswith(f"{path}: must be given")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("${nowhere}", "data.path: Interpolation key 'nowhere' not found"),
        ("${oc.env:NOT_SET_ANYWHERE}", "Environment variable 'NOT_SET_ANYWHERE' not found"),
        ("${nope:1}", "data.path: Unsupported interpolation type nope"),
    ],
)
def test_what_cannot_be_resolved_names_its_setting(value, reason):
    assert reason in complaint("data=folder", f"data.path={value}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "capture:\n\tlayers: [0]\n",
            "line 2: found character '\\t' that cannot start any token; ",
        ),
        ("capture: {layers: [0]\n", "mine.yaml: line 2: expected ',' or '}'"),
        ("capture: 1\ncapture: 2\n", "mine.yaml: line 2: found duplicate key capture"),
        ("capture: \udcff\n", "codec can't decode byte 0xff"),
        ("out: ${oc.env:NOT_SET_ANYWHERE}\n", "out: KeyError raised while resolving"),
    ],
)
def test_a_wrong_yaml_file_is_one_line(ended, tmp_path, text, said):
    folder = tmp_path / "experiment"
    folder.mkdir()
    file = folder / "mine.yaml"
    file.write_text(f"# @package _global_\n{text}", encoding="utf-8", errors="surrogateescape")
    status, err = ended("--config-dir", str(tmp_path), "experiment=mine")
    assert status == 2
    assert said.replace("line 2", "line 3") in err
    assert len(err.splitlines()) == 1


def test_a_folder_that_hydra_cannot_make_is_one_line(ended):
    assert ended("hydra.run.dir=/proc/x")[0] == 2
