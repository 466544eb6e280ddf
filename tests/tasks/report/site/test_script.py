import json

import numpy as np
import pytest

from neuron_atlas.tasks.report.site.script import (
    round_significant,
    script_text,
    to_base64,
    write_script,
)

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.\N{POP DIRECTIONAL FORMATTING}",
    "\\u003c \\ \" ' ` ${1}",
    "\x00\x1b]0;x\x07",
    "__proto__",
    "\N{GRINNING FACE}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_comes_out_as_it_went_in_and_cannot_end_a_script(text):
    script = script_text("key", {"said": text})
    assert json.loads("[" + script.removeprefix("atlas(")[:-3] + "]") == ["key", {"said": text}]
    assert "<" not in script
    assert script.isascii()
    assert script.isprintable() or script.rstrip("\n").isprintable()
    assert script.count("\n") == 1


def test_a_number_that_json_has_not_is_refused_and_short_makes_it_none():
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_text("key", float("nan"))
    numbers = (None, float("nan"), float("inf"), 0.123456)
    assert [round_significant(number) for number in numbers] == [
        None, None, None, 0.1235,
    ]  # fmt: skip


def test_arrays_are_little_endian_bytes():
    assert (
        to_base64(np.array([1, 256], ">u2")) == to_base64(np.array([1, 256], "<u2")) == "AQAAAQ=="
    )


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "data" / "a.js"
    with pytest.raises(ValueError, match="JSON"):
        write_script(path, "a", float("inf"))
    assert not path.exists()
    assert write_script(path, "a", [1]) == path.stat().st_size
    assert [one.name for one in path.parent.iterdir()] == ["a.js"]
