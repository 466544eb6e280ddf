"""Count the rows whose model call failed, and fail the run if there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import TRANSIENT_STATUSES, TableSpec, read_table
from neuron_atlas.tasks.models.answer import NO_COMPLETION
from neuron_atlas.workflows.run.errors import RunError

MAY_PASS_LATER = "may_pass_later"
"""Key in a manifest's `about`: the number of rows with a transient failure. A later run reopens
such a stage, and redoes only the items with such rows."""

# A list: an array made here would import pandas at every start of the program.
_NOT_COUNTED = ["ok", "no_evidence", "no_explanation", "no_samples", "no_control"]
_BUDGET = "budget"


def count_transient(paths: Sequence[Path], spec: TableSpec) -> int:
    """Count the rows with a transient failure, which a later run may resolve."""
    rows = read_table(paths, spec, ["status", "reason"])
    return pc.sum(_may_pass(rows)).as_py() or 0


def check_failures(paths: Sequence[Path], spec: TableSpec, stage: str, limit: float) -> None:
    """Raise RunError if more than the share `limit` of the rows failed.

    Rows that were not paid for do not count: a budget is a decision, not a failure.
    """
    rows = read_table(paths, spec, ["layer", "neuron", "status", "reason"])
    rows = rows.filter(pc.not_equal(rows["status"], _BUDGET))
    failed = rows.filter(pc.invert(pc.is_in(rows["status"], value_set=pa.array(_NOT_COUNTED))))
    if not len(failed) or len(failed) / len(rows) <= limit:
        return
    first = failed.slice(0, 1).to_pylist()[0]
    raise RunError(
        f"{len(failed) / len(rows):.1%} of {len(rows):,} {spec.name} failed, and "
        f"{stage}.max_failed_share is {limit:.1%}. The first: neuron {first['layer']}:"
        f"{first['neuron']}: {first['status']}: {first['reason']}. Answers are kept; "
        f"{_remedy(failed, stage)}"
    )


def _may_pass(rows: pa.Table) -> pa.ChunkedArray:
    """Return which rows have a failure that may not happen again. A reply that held no answer may
    be followed by one that does; an answer that cannot be used is stored."""
    is_no_answer = pc.starts_with(rows["reason"], pattern=NO_COMPLETION)
    return pc.or_kleene(
        pc.is_in(rows["status"], value_set=pa.array(TRANSIENT_STATUSES)), is_no_answer
    )


def _remedy(failed: pa.Table, stage: str) -> str:
    passing = pc.sum(_may_pass(failed)).as_py() or 0
    if passing == len(failed):
        return "the same command asks again for those that failed"
    stored = len(failed) - passing
    again = f"the same command asks again for {passing:,} of them. " if passing else ""
    return (
        f"{again}{stored:,} have an answer that cannot be used: change the settings of {stage}, or "
        f"raise {stage}.max_failed_share to go on without them"
    )
