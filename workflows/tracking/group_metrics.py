"""Metrics of ablated groups: a few stable numbers; the tables have all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from neuron_atlas.tasks.artifacts import TableSpec, read_table
from neuron_atlas.tasks.artifacts.grouped import DISSOCIATIONS, GROUP_EFFECTS

if TYPE_CHECKING:
    from neuron_atlas.workflows.run.context import Context
    from neuron_atlas.workflows.tracking.metrics import Value

_OWN = {"visual": "visual_words", "text": "text_alone"}


def group_metrics(context: Context) -> Iterator[Value]:
    """Yield the metrics of the first share and range of layers; none without groups."""
    for row in _rows(context, DISSOCIATIONS)[:1]:
        for name, column in (
            ("contrast", "contrast"),
            ("contrast_p", "p"),
            ("contrast_p_random", "p_random"),
        ):
            if row[column] is not None:
                yield f"groups/{name}", float(row[column]), 0
    seen: set[str] = set()
    for row in _rows(context, GROUP_EFFECTS):
        name = row["group"]
        is_own = row["measure"] == _OWN.get(name) and name not in seen
        if is_own and row["effect"] is not None and row["random_mean"] is not None:
            seen.add(name)
            yield f"groups/excess/{name}", float(row["effect"] - row["random_mean"]), 0


def _rows(context: Context, spec: TableSpec) -> list[dict[str, Any]]:
    manifest = context.done.get("groups")
    if manifest is None or spec.name not in manifest.files:
        return []
    return read_table(context.paths("groups", spec.name), spec).to_pylist()
