"""The settings of capture, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuron_atlas.tasks.settings import runtime
from neuron_atlas.tasks.subject.settings import HookPoint

PeakRole = Literal["visual", "text"]

_LEAST = {"top_n": 1, "random_samples": 0, "batch_size": 1, "shards": 1, "decoders": 0}


@dataclass(frozen=True)
class CaptureSettings:
    """What is recorded of the subject's neurons.

    layers: decoder layers; None for all. hook_point: `gate` is act_fn(gate_proj x), the paper's;
    `gate_up` is the input of down_proj. top_n: exemplars a neuron. random_samples: samples, drawn
    by `seed`, whose traces are kept for every neuron. peak_roles: the tokens over which a sample's
    peak is taken, visual, text or both. batch_size: samples a forward pass. shards: work items;
    None for one in every 256 samples, or fewer where traces are large. device_memory_gb,
    host_memory_gb: of each subject actor's device beside the subject, and of its machine, that
    may be used; None for what is free. decoders: threads that open images while the device
    computes; None for four beside a GPU and none on a CPU, where they would take its cores.
    """

    layers: tuple[int, ...] | None = None
    hook_point: HookPoint = "gate"
    top_n: int = 50
    random_samples: int = 32
    seed: int = 0
    peak_roles: tuple[PeakRole, ...] = ("visual", "text")
    batch_size: int = runtime(16)
    shards: int | None = runtime(None)
    device_memory_gb: float | None = runtime(None)
    host_memory_gb: float | None = runtime(None)
    decoders: int | None = runtime(None)

    def __post_init__(self) -> None:
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError("layers: name at least one layer, each 0 or above, or null for all")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: name each layer once")
        if not self.peak_roles or len(set(self.peak_roles)) < len(self.peak_roles):
            raise ValueError("peak_roles: name visual, text, or each of them once")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: must be at least {least}")
        for name in ("device_memory_gb", "host_memory_gb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: must be above 0")
