"""Where the traces go: the plan that fits the device, worked out before a sample is read.

Everything but traces is small and always lies beside the model. Traces are kept, by layer, on the
device, or in host memory, or not at all in the first pass: those are replayed, a group of layers
a pass, when the winners are known. The rows that come out are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.artifacts import ROLES
from tasks.histogram import BINS, BLOCKS

_FLOAT16 = 2
_SPARE = 0.9
"""The share of the free memory that is planned for; allocators need the rest."""


class DoesNotFit(Exception):
    """No plan fits; the message says what would."""


@dataclass(frozen=True)
class Demand:
    """What a capture asks for, in bytes.

    weights: of the subject, already on the device. work: of one batch's forward pass. ranking:
    peaks, moments and histograms of all layers. traces: of each layer, by layer.
    """

    weights: int
    work: int
    ranking: int
    traces: dict[int, int]


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
            f"peaks, moments and histograms {_size(demand.ranking)}, "
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


def plan_memory(demand: Demand, batch_size: int, device_free: int, host_free: int) -> MemoryPlan:
    """Keep as many layers' traces on the device as fit, then in host memory; replay the rest.

    device_free: bytes free beside the weights. host_free: bytes of host memory for traces, 0 on
    a CPU, where the device is the host. Raises DoesNotFit.
    """
    room = int(device_free * _SPARE) - demand.work - demand.ranking
    if room < 0:
        raise DoesNotFit(
            f"a batch of {batch_size} needs {_size(demand.work)} and the rankings of "
            f"{len(demand.traces)} layers {_size(demand.ranking)}, and {_size(device_free)} are "
            "free beside the subject; lower capture.batch_size, or capture fewer layers at a time"
        )
    waiting = list(demand.traces)
    passes: list[Pass] = []
    while waiting:
        device = _take(waiting, demand, room)
        host = _take(waiting, demand, int(host_free * _SPARE))
        if passes and not device and not host:
            raise DoesNotFit(
                f"the traces of layer {waiting[0]} alone need {_size(demand.traces[waiting[0]])}, "
                f"and {_size(max(room, host_free))} are free; raise capture.shards, or lower "
                "capture.top_n or capture.random_samples"
            )
        passes.append(Pass(device, host))
    return MemoryPlan(tuple(passes), demand, batch_size)


def _take(waiting: list[int], demand: Demand, room: int) -> tuple[int, ...]:
    """Remove from `waiting` as many of its first layers as have room, and give them."""
    taken = []
    while waiting and demand.traces[waiting[0]] <= room:
        room -= demand.traces[waiting[0]]
        taken.append(waiting.pop(0))
    return tuple(taken)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
