"""What becomes of rows whose model call failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import EXPLANATIONS, write_table
from neuron_atlas.tasks.models.answer import NO_COMPLETION
from neuron_atlas.workflows.atlas import stages_of
from neuron_atlas.workflows.run.budget_end import budget_lines
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.failures import check_failures, count_transient
from neuron_atlas.workflows.run.store import Store
from neuron_atlas.workflows.tracking.tracker import Tracker
from tests.workflows.runs import NAMES, runs_in, settings


def explanations(path: Path, *statuses: str, reason: str = "") -> Path:
    blank = {field.name: _blank(field) for field in EXPLANATIONS.schema} | {"reason": reason}
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


def test_a_reply_without_an_answer_is_asked_for_again_and_an_answer_that_is_no_use_is_not(tmp_path):
    said = f"{NO_COMPLETION}: KeyError"  # As an earlier version wrote it.
    path = explanations(tmp_path / "part.parquet", "malformed", "malformed", reason=said)
    assert count_transient([path], EXPLANATIONS) == 2
    with pytest.raises(RunError, match="the same command asks again for those that failed"):
        check_failures([path], EXPLANATIONS, "explain", 0.1)
    path = explanations(tmp_path / "other.parquet", "malformed", "rate_limited")
    with pytest.raises(RunError) as raised:
        check_failures([path], EXPLANATIONS, "explain", 0.1)
    assert "asks again for 1 of them. 1 have an answer that cannot be used" in str(raised.value)
    assert "raise explain.max_failed_share" in str(raised.value)


def test_what_a_budget_did_not_pay_for_has_not_failed(tmp_path):
    path = explanations(tmp_path / "part.parquet", "ok", *["budget"] * 9)
    check_failures([path], EXPLANATIONS, "explain", 0.0)
    assert count_transient([path], EXPLANATIONS) == 9  # A larger budget pays for them.
    path = explanations(tmp_path / "none.parquet", *["budget"] * 3)
    check_failures([path], EXPLANATIONS, "explain", 0.0)
    path = explanations(tmp_path / "both.parquet", "ok", "failed", *["budget"] * 8)
    with pytest.raises(RunError, match=r"50\.0% of 2 explanations failed"):
        check_failures([path], EXPLANATIONS, "explain", 0.4)


def test_a_budget_that_ended_a_run_is_named_with_its_setting():
    given = settings("explain=gpt4o", "explain.budget_usd=1.5")
    counts = [
        {"table": "explanations", "status": "budget", "count": 70},
        {"table": "simulations", "status": "budget", "count": 3},
        {"table": "explanations", "status": "refused", "count": 1},
    ]
    explain, simulate = budget_lines(counts, given)
    assert explain.startswith("explain.budget_usd ($1.50) was reached: 70 explanations")
    assert simulate.startswith("simulate.budget_usd was reached: 3 simulations")
    assert budget_lines(counts[2:], given) == []


@pytest.mark.parametrize(("limit", "fails"), [(0.4, True), (0.5, False)])
def test_a_run_goes_on_with_no_more_failures_than_allowed(tmp_path, limit, fails):
    path = explanations(tmp_path / "part.parquet", "ok", "no_evidence", "malformed", "failed")
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
