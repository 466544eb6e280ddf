"""The table of all types in docs/models-and-data.md is what their small instances do."""

from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.families.table import ALL, markdown, row, rows

DOCS = Path(__file__).parents[4] / "docs" / "models-and-data.md"


def test_every_type_has_a_line():
    lines = DOCS.read_text().splitlines()
    for kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        assert sum(line.startswith(f"| `{kind}` | ") for line in lines) == 1


@pytest.mark.parametrize("kind", ["mllama", "florence2", "git", "mistral3", "qwen3_vl_moe"])
def test_a_type_that_does_not_run_is_refused_for_the_reason_in_the_table(kind):
    (_, _, line) = markdown([row(kind)])
    assert line in DOCS.read_text().splitlines()


@pytest.mark.slow
def test_the_table_is_what_the_types_do():
    written = DOCS.read_text().splitlines()
    table = rows()
    _, _, *lines = markdown(table)
    assert not set(lines) - set(written)
    assert sum(one.outcome in ("known", "probed", "without") for one in table) >= 36
    assert set(ALL) <= {one.kind for one in table}
