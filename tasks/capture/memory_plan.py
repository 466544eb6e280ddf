"""Plan where the traces of each layer are held, before any sample is read.

All data except traces is small and stays on each layer's device. The first pass holds the traces
of as many layers as fit, on the device or in host memory. Once it has ranked the samples, further
passes replay them for the traces of the other layers. The resulting rows are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS

_FLOAT16 = 2
_USABLE_SHARE = 0.9
"""Share of the free memory that a plan uses; the allocator needs the remainder."""


class MemoryPlanError(Exception):
    """No plan fits the memory; the message gives the setting to change."""


@dataclass(frozen=True)
class Demand:
    """Memory that a capture needs, in bytes.

    weights: the subject's weights, already on its devices. work: one batch's forward pass.
    ranking: peaks, moments and histograms of one layer. traces: the traces of each layer.
    """

    weights: int
    work: int
    ranking: int
    traces: dict[int, int]

    @property
    def rankings(self) -> int:
        """Bytes of the peaks, moments and histograms of all layers."""
        return self.ranking * len(self.traces)


@dataclass(frozen=True)
class Pass:
    """Layers whose traces one pass holds, on the device or in host memory."""

    device: tuple[int, ...]
    host: tuple[int, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers whose traces this pass holds."""
        return self.device + self.host


@dataclass(frozen=True)
class MemoryPlan:
    """The passes over the samples, and the memory that they need.

    The first pass ranks the samples for all layers; each pass collects the traces of its layers.
    """

    passes: tuple[Pass, ...]
    demand: Demand
    batch_size: int

    def __str__(self) -> str:
        demand = self.demand
        first, *further = self.passes
        n_replayed = sum(len(later.layers) for later in further)
        parts = [
            f"{count} {label}"
            for count, label in (
                (len(first.device), "on the device"),
                (len(first.host), "in host memory"),
                (n_replayed, "replayed"),
            )
            if count
        ]
        return (
            f"weights {_size(demand.weights)}, batch of {self.batch_size} {_size(demand.work)}, "
            f"peaks, moments and histograms {_size(demand.rankings)}, "
            f"traces {_size(sum(demand.traces.values()))} (layers: {', '.join(parts)}); "
            f"passes: {len(self.passes)}"
        )


def ranking_bytes(neurons: int, top_n: int) -> int:
    """Return the bytes of one layer's record without traces (see tasks.capture.record)."""
    statistics = len(ROLES) * 36 + 2 * BLOCKS * BINS * 4
    return neurons * (top_n * 12 + statistics)


def trace_bytes(neurons: int, traces: int, tokens: int) -> int:
    """Return the bytes of one layer's traces: `traces` per neuron, of up to `tokens` tokens."""
    return neurons * traces * tokens * _FLOAT16


def plan_memory(
    demand: Demand,
    batch_size: int,
    free: Mapping[str, int],
    devices: Mapping[int, str],
    free_host_bytes: int,
) -> MemoryPlan:
    """Hold as many layers' traces on their device as fit, then in host memory; replay the others.

    free: bytes free next to the weights, by device. devices: the device of every layer.
    free_host_bytes: bytes of host memory for traces; 0 on a CPU, where the device is the host.
    Raises MemoryPlanError.
    """
    rankings = {name: demand.ranking * list(devices.values()).count(name) for name in free}
    budgets = {
        name: int(free[name] * _USABLE_SHARE) - demand.work - rankings[name] for name in free
    }
    for name in free:
        if budgets[name] < 0:
            raise MemoryPlanError(
                f"a batch of {batch_size} needs {_size(demand.work)} and the rankings "
                f"{_size(rankings[name])}, but {_size(free[name])} are free on {name} next to the "
                "subject; lower capture.batch_size, or capture fewer layers at a time"
            )
    host_budget = int(free_host_bytes * _USABLE_SHARE)
    unplanned = list(demand.traces)
    passes: list[Pass] = []
    while unplanned:
        planned = _plan_pass(unplanned, demand, dict(budgets), host_budget, devices)
        if passes and not planned.layers:
            needed = demand.traces[unplanned[0]]
            raise MemoryPlanError(
                f"the traces of layer {unplanned[0]} alone need {_size(needed)}, but "
                f"{_size(max(budgets[devices[unplanned[0]]], host_budget))} are free; raise "
                "capture.shards, or lower capture.top_n or capture.random_samples"
            )
        passes.append(planned)
        unplanned = [layer for layer in unplanned if layer not in planned.layers]
    return MemoryPlan(tuple(passes), demand, batch_size)


def _plan_pass(
    layers: Sequence[int],
    demand: Demand,
    budgets: dict[str, int],
    host_budget: int,
    devices: Mapping[int, str],
) -> Pass:
    """Choose those of `layers`, in order, whose traces fit into one pass."""
    device, host = [], []
    for layer in layers:
        needed = demand.traces[layer]
        if needed <= budgets[devices[layer]]:
            budgets[devices[layer]] -= needed
            device.append(layer)
        elif needed <= host_budget:
            host_budget -= needed
            host.append(layer)
    return Pass(tuple(device), tuple(host))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
