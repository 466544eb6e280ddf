"""Count the rows whose model call failed, and fail the run if there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import TableSpec, read_table
from neuron_atlas.workflows.run.errors import RunError

MAY_PASS_LATER = "may_pass_later"
"""Key in a manifest's `about`: the number of rows with a transient failure. A later run reopens
such a stage, and redoes only the items with such rows."""

_TRANSIENT = pa.array(["rate_limited", "timed_out", "budget", "failed"])
_NOT_COUNTED = pa.array(["ok", "no_evidence", "no_explanation", "no_samples", "no_control"])


def count_transient(paths: Sequence[Path], spec: TableSpec) -> int:
    """Count the rows with a transient failure, which a later run may resolve."""
    statuses = read_table(paths, spec, ["status"])["status"]
    return pc.sum(pc.is_in(statuses, value_set=_TRANSIENT)).as_py() or 0


def check_failures(paths: Sequence[Path], spec: TableSpec, stage: str, limit: float) -> None:
    """Raise RunError if more than the share `limit` of the rows failed."""
    rows = read_table(paths, spec, ["layer", "neuron", "status", "reason"])
    failed = rows.filter(pc.invert(pc.is_in(rows["status"], value_set=_NOT_COUNTED)))
    if not len(failed) or len(failed) / len(rows) <= limit:
        return
    first = failed.slice(0, 1).to_pylist()[0]
    raise RunError(
        f"{len(failed) / len(rows):.1%} of {len(rows):,} {spec.name} failed, and "
        f"{stage}.max_failed_share is {limit:.1%}. The first: neuron {first['layer']}:"
        f"{first['neuron']}: {first['status']}: {first['reason']}. Answers are kept; the same "
        "command asks again for those that failed"
    )
