"""What becomes of rows whose model call failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import EXPLANATIONS, write_table
from neuron_atlas.workflows.atlas import stages_of
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.failures import check_failures, count_transient
from neuron_atlas.workflows.run.store import Store
from neuron_atlas.workflows.tracking.tracker import Tracker
from tests.workflows.runs import NAMES, runs_in, settings


def explanations(path: Path, *statuses: str) -> Path:
    blank = {field.name: _blank(field) for field in EXPLANATIONS.schema}
    rows = [
        blank | {"layer": 0, "neuron": neuron, "explainer": "gpt4o", "status": status}
        for neuron, status in enumerate(statuses)
    ]
    write_table(pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema), EXPLANATIONS, path)
    return path


def _blank(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        return []
    return "" if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type) else 0


def test_failures_that_may_have_passed_are_counted(tmp_path):
    path = explanations(tmp_path / "part.parquet", "ok", "timed_out", "malformed", "budget")
    assert count_transient([path], EXPLANATIONS) == 2
    assert count_transient([], EXPLANATIONS) == 0


@pytest.mark.parametrize(("limit", "fails"), [(0.4, True), (0.5, False)])
def test_a_run_goes_on_with_no_more_failures_than_allowed(tmp_path, limit, fails):
    path = explanations(tmp_path / "part.parquet", "ok", "no_evidence", "malformed", "budget")
    if fails:
        with pytest.raises(RunError, match=r"50.0% of 4 explanations failed.*neuron 0:2: malf"):
            check_failures([path], EXPLANATIONS, "explain", limit)
    else:
        check_failures([path], EXPLANATIONS, "explain", limit)


def test_the_explanations_of_a_run_with_too_many_failures_are_logged_all_the_same(tmp_path):
    given = settings("explain=gpt4o", "explain.max_failed_share=0.5")
    context = Context(given, Store(tmp_path))
    path = explanations(tmp_path / "explanations-0.parquet", *["malformed"] * 4)
    explain = stages_of(given)[NAMES.index("explain")]
    with pytest.raises(RunError, match=r"100\.0% of 4 explanations failed"):
        explain.finish(context, tmp_path, {"explanations": [path.name]})

    Tracker(given, tmp_path, {}).finish(context, "FAILED", "too many")
    client, (run,) = runs_in(tmp_path / "mlflow.db")
    logged = Path(client.download_artifacts(run.info.run_id, "explanations.json"))
    assert logged.read_text(encoding="utf-8").count('"malformed"') == 4
