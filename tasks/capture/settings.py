"""Settings of the `capture` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from neuron_atlas.tasks.settings import AtLeastOne, Share, not_hashed
from neuron_atlas.tasks.subject.sae.find import find_saes
from neuron_atlas.tasks.subject.sae.settings import SAE, SaeSettings
from neuron_atlas.tasks.subject.settings import MODULE_PREFIX, TOWERS, HookPoint

PeakRole = Literal["visual", "text"]


@dataclass(frozen=True)
class CaptureSettings:
    """What to record of the subject's neurons.

    layers: decoder layers; None for all, or for those with an SAE. hook_point: `gate` is
    act_fn(gate_proj x), as in the paper; `gate_up` is the input of down_proj; `module:PATH` is the
    output of a module of the decoder layer, such as module:mlp; `sae` is the latents of SAEs. sae:
    where these are. `vision` is the FFNs of the vision tower, whose layers are then chosen, and
    `projector` the hidden layer of the projector (layer 0). top_n: exemplars per neuron.
    top_activations: highest visual and text activations stored per exemplar. peak_roles: the
    tokens over which a sample's peak is taken: visual, text or both. batch_size: samples per
    forward pass. shards: number of work items; None for shards of about five minutes (see
    shard_plan). device_memory_gb: memory to use on each subject actor's device, next to the
    subject; None for all that is free. image_threads: threads that open images while the device
    computes; None for four with a GPU, and none on a CPU, which needs its cores.
    max_exemplar_share: top_n is lowered to this share of the usable samples, so that samples remain
    to score a neuron. max_nonfinite_share: the run fails if a larger share of a layer's visual and
    text activations is infinite or NaN.
    """

    layers: tuple[int, ...] | None = None
    hook_point: HookPoint = "gate"
    # Not hashed: the content of the SAEs is.
    sae: SaeSettings = not_hashed(default_factory=SaeSettings)
    top_n: AtLeastOne = 50
    top_activations: AtLeastOne = 8
    peak_roles: tuple[PeakRole, ...] = ("visual", "text")
    batch_size: AtLeastOne = not_hashed(16)
    shards: AtLeastOne | None = not_hashed(None)
    device_memory_gb: Annotated[float, Gt(0)] | None = not_hashed(None)
    image_threads: Annotated[int, Ge(0)] | None = not_hashed(None)
    # Not hashed: the lowered top_n is.
    max_exemplar_share: Annotated[float, Interval(gt=0, le=1)] = not_hashed(0.5)
    max_nonfinite_share: Share = not_hashed(0.001)

    def __post_init__(self) -> None:
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError("layers: give at least one layer, each 0 or above, or null for all")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: give each layer once")
        if self.hook_point not in ("gate", "gate_up", SAE, *TOWERS) and not (
            self.hook_point.startswith(MODULE_PREFIX) and self.hook_point != MODULE_PREFIX
        ):
            raise ValueError(
                f"hook_point: {self.hook_point!r} is not one of gate, gate_up, sae, vision, "
                "projector, module:PATH"
            )
        if self.hook_point == SAE and not self.sae.path:
            raise ValueError("sae.path: hook_point=sae needs the folder with the SAEs")
        if self.hook_point != SAE and self.sae.path:
            raise ValueError(f"sae.path: hook_point is {self.hook_point!r}; set hook_point=sae")
        if not self.peak_roles or len(set(self.peak_roles)) < len(self.peak_roles):
            raise ValueError("peak_roles: give visual, text or both, each once")
        if self.hook_point in TOWERS and self.peak_roles != ("visual",):
            raise ValueError(
                f"peak_roles: {self.hook_point} has activations at visual tokens only; set "
                "capture.peak_roles=[visual]"
            )

    def chosen_layers(self) -> tuple[int, ...] | None:
        """Return the layers to capture: those with an SAE at the hook point `sae`. None for all.

        Raises SubjectError if an SAE cannot be used.
        """
        if self.hook_point != SAE or self.sae.path is None:
            return self.layers
        return tuple(find_saes(self.sae.path, self.layers))

    def for_samples(self, n_samples: int) -> CaptureSettings:
        """Return the settings for a dataset of `n_samples` usable samples, with top_n lowered to
        max_exemplar_share of them."""
        most = max(1, int(n_samples * self.max_exemplar_share))
        return replace(self, top_n=min(self.top_n, most))
