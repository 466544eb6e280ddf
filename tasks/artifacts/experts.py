"""Number the neurons of a layer with experts: neuron = expert * width + index within the expert."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, groupby

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, TableSpec, column

EXPERTS = TableSpec(
    "experts",
    pa.schema(
        [
            NEURON[0],
            column("expert", pa.int32(), "number of the expert, from 0; a shared one is the last"),
            column("kind", pa.string(), "routed, or shared: it reads every token"),
            column("first_neuron", pa.int32(), "neuron of the layer that is the expert's first"),
            column("neurons", pa.int32(), "number of its neurons"),
        ]
    ),
    key=("layer", "expert"),
)
"""The experts of layers with a mixture of experts, written by `capture`; absent without any."""


@dataclass(frozen=True)
class ExpertLayout:
    """The experts of one layer, in the order of their neurons.

    routed: (experts, neurons of each) of every group of routed experts; most layers have one group.
    shared: neurons of the shared expert, which reads every token and comes last; 0 without one.
    """

    routed: tuple[tuple[int, int], ...]
    shared: int = 0

    @property
    def experts(self) -> int:
        """Number of routed experts; also the number that the shared expert has."""
        return sum(experts for experts, _ in self.routed)

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of each expert, the shared one last."""
        widths = [width for experts, width in self.routed for _ in range(experts)]
        return (*widths, self.shared) if self.shared else tuple(widths)

    @property
    def neurons(self) -> int:
        """Number of neurons of the layer."""
        return sum(self.widths)

    @property
    def starts(self) -> tuple[int, ...]:
        """First neuron of each expert, the shared one last."""
        return tuple(accumulate(self.widths, initial=0))[:-1]

    def neuron(self, expert: int, index: int) -> int:
        """Return the neuron of an expert and an index within it. Raises ValueError."""
        if not (0 <= expert < len(self.widths) and 0 <= index < self.widths[expert]):
            raise ValueError(f"there is no neuron {index} of expert {expert}")
        return self.starts[expert] + index

    def expert(self, neuron: int) -> tuple[int, int]:
        """Return the expert of a neuron and its index within it. Raises ValueError."""
        for expert, (start, width) in enumerate(zip(self.starts, self.widths, strict=True)):
            if start <= neuron < start + width:
                return expert, neuron - start
        raise ValueError(f"there is no neuron {neuron}; there are {self.neurons}")

    def name(self, neuron: int) -> str:
        """Return words for a neuron, such as `expert 5, neuron 12`."""
        expert, index = self.expert(neuron)
        return (
            f"{'shared expert' if expert == self.experts else f'expert {expert}'}, neuron {index}"
        )

    def table(self, layer: int) -> pa.Table:
        """Return the rows of `experts` of a layer."""
        kinds = ["routed"] * self.experts + ["shared"] * (self.shared > 0)
        columns = {
            "layer": [layer] * len(kinds),
            "expert": range(len(kinds)),
            "kind": kinds,
            "first_neuron": self.starts,
            "neurons": self.widths,
        }
        return pa.table(columns).cast(EXPERTS.schema)

    @staticmethod
    def from_table(rows: pa.Table) -> ExpertLayout | None:
        """Return the layout of a layer's rows of `experts`; None without rows."""
        if not len(rows):
            return None
        listed = rows.sort_by("expert").to_pylist()
        widths = [row["neurons"] for row in listed if row["kind"] == "routed"]
        groups = tuple((len(list(same)), width) for width, same in groupby(widths))
        return ExpertLayout(groups, sum(row["neurons"] for row in listed[len(widths) :]))
