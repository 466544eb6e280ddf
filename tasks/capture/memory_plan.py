"""Where the traces go: the plan that fits the device, worked out before a sample is read.

Everything but traces is small and always lies beside the model. Traces are kept, by layer, on the
device, or in host memory, or not at all in the first pass: those are replayed, a group of layers
a pass, when the winners are known. The rows that come out are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS

_FLOAT16 = 2
_SPARE = 0.9
"""The share of the free memory that is planned for; allocators need the rest."""


class DoesNotFit(Exception):
    """No plan fits; the message says what would."""


@dataclass(frozen=True)
class Demand:
    """What a capture asks for, in bytes.

    weights: of the subject, already on its devices. work: of one batch's forward pass. ranking:
    peaks, moments and histograms of one layer. traces: of each layer, by layer.
    """

    weights: int
    work: int
    ranking: int
    traces: dict[int, int]

    @property
    def rankings(self) -> int:
        """Peaks, moments and histograms of all layers."""
        return self.ranking * len(self.traces)


@dataclass(frozen=True)
class Pass:
    """The layers whose traces one pass keeps, by where: the device, or host memory."""

    device: tuple[int, ...]
    host: tuple[int, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """All of them."""
        return self.device + self.host


@dataclass(frozen=True)
class MemoryPlan:
    """The passes over the samples, and the demand that decided them.

    The first pass ranks the samples for all layers; the others replay them for their traces.
    """

    passes: tuple[Pass, ...]
    demand: Demand
    batch_size: int

    def __str__(self) -> str:
        demand = self.demand
        first, *further = self.passes
        replayed = sum(len(replay.layers) for replay in further)
        where = [
            f"{count} {place}"
            for count, place in (
                (len(first.device), "beside the model"),
                (len(first.host), "in host memory"),
                (replayed, f"replayed in {len(further)} more"),
            )
            if count
        ]
        return (
            f"weights {_size(demand.weights)}, a batch of {self.batch_size} {_size(demand.work)}, "
            f"peaks, moments and histograms {_size(demand.rankings)}, "
            f"traces {_size(sum(demand.traces.values()))}; one pass, traces of layers: "
            f"{', '.join(where)}"
        )


def ranking_bytes(neurons: int, top_n: int) -> int:
    """Bytes of one layer's record without traces (see tasks.capture.record)."""
    tally = len(ROLES) * 36 + 2 * BLOCKS * BINS * 4
    return neurons * (top_n * 12 + tally)


def trace_bytes(neurons: int, traces: int, tokens: int) -> int:
    """Bytes of one layer's traces: `traces` a neuron, of up to `tokens` tokens."""
    return neurons * traces * tokens * _FLOAT16


def plan_memory(
    demand: Demand,
    batch_size: int,
    free: Mapping[str, int],
    places: Mapping[int, str],
    host_free: int,
) -> MemoryPlan:
    """Keep as many layers' traces on their device as fit, then in host memory; replay the rest.

    free: bytes free beside the weights, by device. places: the device of every layer. host_free:
    bytes of host memory for traces, 0 on a CPU, where the device is the host. Raises DoesNotFit.
    """
    rankings = {name: demand.ranking * list(places.values()).count(name) for name in free}
    room = {name: int(free[name] * _SPARE) - demand.work - rankings[name] for name in free}
    for name in free:
        if room[name] < 0:
            raise DoesNotFit(
                f"a batch of {batch_size} needs {_size(demand.work)} and the rankings "
                f"{_size(rankings[name])}, and {_size(free[name])} are free on {name} beside the "
                "subject; lower capture.batch_size, or capture fewer layers at a time"
            )
    host_room = int(host_free * _SPARE)
    waiting = list(demand.traces)
    passes: list[Pass] = []
    while waiting:
        kept = _keep(waiting, demand, dict(room), host_room, places)
        if passes and not kept.layers:
            needed = demand.traces[waiting[0]]
            raise DoesNotFit(
                f"the traces of layer {waiting[0]} alone need {_size(needed)}, and "
                f"{_size(max(room[places[waiting[0]]], host_room))} are free; raise "
                "capture.shards, or lower capture.top_n or capture.random_samples"
            )
        passes.append(kept)
        waiting = [layer for layer in waiting if layer not in kept.layers]
    return MemoryPlan(tuple(passes), demand, batch_size)


def _keep(
    waiting: Sequence[int],
    demand: Demand,
    room: dict[str, int],
    host_room: int,
    places: Mapping[int, str],
) -> Pass:
    """The layers of `waiting`, in their order, whose traces one pass has room for."""
    device, host = [], []
    for layer in waiting:
        needed = demand.traces[layer]
        if needed <= room[places[layer]]:
            room[places[layer]] -= needed
            device.append(layer)
        elif needed <= host_room:
            host_room -= needed
            host.append(layer)
    return Pass(tuple(device), tuple(host))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
