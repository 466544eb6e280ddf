"""Check before any sample is read that a capture fits into memory.

A capture needs the subject's weights, the records of all layers, and one batch. Each layer's record
stays on the layer's device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS

_USABLE_SHARE = 0.9
"""Share of the free memory that a plan uses; the allocator needs the remainder."""


class MemoryPlanError(Exception):
    """The capture does not fit into memory; the message gives the setting to change."""


@dataclass(frozen=True)
class Demand:
    """Memory that a capture needs, in bytes.

    weights: the subject's weights, already on its devices. work: one batch's forward pass.
    record: the record of one layer. layers: number of layers.
    """

    weights: int
    work: int
    record: int
    layers: int

    @property
    def records(self) -> int:
        """Bytes of the records of all layers."""
        return self.record * self.layers


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a capture needs, and the samples of a batch."""

    demand: Demand
    batch_size: int

    def __str__(self) -> str:
        demand = self.demand
        return (
            f"weights {_size(demand.weights)}, records of {demand.layers} layers "
            f"{_size(demand.records)}, batch of {self.batch_size} {_size(demand.work)}"
        )


def record_bytes(neurons: int, top_n: int, top_activations: int, activation_bytes: int) -> int:
    """Return the bytes of one layer's record (see tasks.capture.record).

    activation_bytes: size of one stored activation.
    """
    statistics = len(ROLES) * 36 + 2 * BLOCKS * BINS * 4
    key_and_position, summary = 12, 20
    slot = key_and_position + summary + 2 * top_activations * activation_bytes
    return neurons * (top_n * slot + statistics)


def plan_memory(
    demand: Demand, batch_size: int, free: Mapping[str, int], devices: Mapping[int, str]
) -> MemoryPlan:
    """Check that the records and a batch fit on every device.

    free: bytes free next to the weights, by device. devices: the device of every layer. Raises
    MemoryPlanError.
    """
    for name, available in free.items():
        records = demand.record * list(devices.values()).count(name)
        if int(available * _USABLE_SHARE) < demand.work + records:
            raise MemoryPlanError(
                f"a batch of {batch_size} needs {_size(demand.work)} and the records "
                f"{_size(records)}, but {_size(available)} are free on {name} next to the "
                "subject; lower capture.batch_size or capture.top_n, or capture fewer layers at "
                "a time"
            )
    return MemoryPlan(demand, batch_size)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
