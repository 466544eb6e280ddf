"""Split the neurons that have several meanings into work items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import MEANINGS, layer_file, read_table
from neuron_atlas.workflows.run.content import hash_rows
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.neurons import NeuronPart, split_into_parts

if TYPE_CHECKING:
    from neuron_atlas.tasks.evidence.meanings import Members


@dataclass(frozen=True)
class MeaningPart:
    """Neurons of one layer that have several meanings, as one work item.

    meanings: file with the exemplars of each meaning. n_meanings: of all neurons together.
    strong_share: see `AnalyseSettings`.
    """

    neurons: NeuronPart
    meanings: Path
    n_meanings: int
    strong_share: float

    def members(self) -> Members:
        """Return the exemplars of each meaning."""
        from neuron_atlas.tasks.evidence.meanings import read_members

        return read_members(read_table(self.meanings, MEANINGS, neurons=self.neurons.neurons))


def split_into_meaning_parts(context: Context, chosen: pa.Table, size: int) -> list[MeaningPart]:
    """Return the neurons of `chosen`, rows of `types`, that have several meanings, in parts."""
    chosen_layers = sorted(set(chosen["layer"].to_pylist()))
    paths = {one: context.folder("analyse") / layer_file(MEANINGS, one) for one in chosen_layers}
    keys = ["layer", "neuron"]
    rows = read_table(list(paths.values()), MEANINGS, [*keys, "meaning"])
    counts = rows.group_by(keys).aggregate([("meaning", "max")])
    several = chosen.join(counts, keys=keys, join_type="inner")
    several = several.sort_by([(key, "ascending") for key in keys])
    return [
        MeaningPart(
            replace(part, types=part.types.select(chosen.column_names)),
            paths[part.layer],
            pc.sum(part.types["meaning_max"]).as_py(),
            context.settings.analyse.strong_share,
        )
        for part in split_into_parts(several, size)
    ]


def meanings_identity(parts: list[MeaningPart]) -> str:
    """Return a hash of the meanings of some neurons, and of what makes a peak strong."""
    rows = hash_rows(
        read_table(part.meanings, MEANINGS, neurons=part.neurons.neurons) for part in parts
    )
    shares = {part.strong_share for part in parts}
    return f"{rows} {sorted(shares)}"
