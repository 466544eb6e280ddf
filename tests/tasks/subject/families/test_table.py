"""The table of all types in docs/models-and-data.md is what their small instances do."""

from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.families.checks import run_thoroughly
from tests.families.packaged import missing
from tests.families.table import ALL, markdown, row, small

DOCS = Path(__file__).parents[4] / "docs" / "models-and-data.md"
RUNS = ("known", "probed", "without")


def outcome(kind: str) -> str:
    """What the table in docs says of a type."""
    (line,) = (line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{kind}` | "))
    return line.split("|")[2].strip()


def skip_without_packages(kind: str) -> None:
    if missing(kind):
        pytest.skip(f"{kind} needs {' and '.join(missing(kind))}, not installed here")


def test_every_type_has_a_line_and_at_least_40_run():
    outcomes = [outcome(kind) for kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]
    assert sum(one in RUNS for one in outcomes) >= 40


@pytest.mark.parametrize("kind", ["mllama", "florence2", "git", "qwen3_vl_moe"])
def test_types_that_are_refused_and_one_with_experts_do_what_the_table_says(kind):
    (_, _, line) = markdown([row(kind)])
    assert line in DOCS.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))
def test_the_line_of_a_type_is_what_it_does(kind):
    skip_without_packages(kind)
    (_, _, line) = markdown([row(kind)])
    assert line in DOCS.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(ALL))
def test_pixels_and_batches_of_a_type_that_runs(kind, tmp_path):
    """Pixels change the tokens that look at them; batches of 1 and of 8 give the same rows."""
    skip_without_packages(kind)
    if outcome(kind) not in RUNS:
        pytest.skip(f"{kind} is refused")
    run_thoroughly(small(kind, tmp_path / "model"), tmp_path / "run")
