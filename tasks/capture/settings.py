"""The settings of capture, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from neuron_atlas.tasks.settings import AtLeastOne, not_hashed
from neuron_atlas.tasks.subject.settings import HookPoint

PeakRole = Literal["visual", "text"]


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
    top_n: AtLeastOne = 50
    random_samples: Annotated[int, Ge(0)] = 32
    seed: int = 0
    peak_roles: tuple[PeakRole, ...] = ("visual", "text")
    batch_size: AtLeastOne = not_hashed(16)
    shards: AtLeastOne | None = not_hashed(None)
    device_memory_gb: Annotated[float, Gt(0)] | None = not_hashed(None)
    host_memory_gb: Annotated[float, Gt(0)] | None = not_hashed(None)
    decoders: Annotated[int, Ge(0)] | None = not_hashed(None)

    def __post_init__(self) -> None:
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError("layers: name at least one layer, each 0 or above, or null for all")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: name each layer once")
        if not self.peak_roles or len(set(self.peak_roles)) < len(self.peak_roles):
            raise ValueError("peak_roles: name visual, text, or each of them once")
