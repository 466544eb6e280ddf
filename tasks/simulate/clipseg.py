"""Simulate visual tokens with an open-vocabulary segmentation model (CLIPSeg)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.pretrained import check_folder, weights_revision
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne, not_hashed
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

_KIND = "clipseg"
"""`model_type` of CLIPSeg in transformers."""
_SETTING = "simulate.model"


@dataclass(frozen=True)
class ClipSeg(Simulator):
    """Settings of the CLIPSeg simulator (Lueddecke and Ecker 2022).

    CLIPSeg maps the probability of an explanation at each pixel. A visual token's prediction is the
    mean of the map over its box; text tokens are not predicted.

    Probabilities are used, not logits, because samples are scored together: logits are unbounded,
    so one image could dominate a score, and padding would have no natural value (its probability
    is 0).

    model: a folder or a Hugging Face id. revision: a commit or tag of a Hugging Face model. dtype:
    of the weights. batch_size: maps computed together, halved when memory runs out.
    feature_cache_gb: image features (10^9 bytes) that each copy of the model caches for all its
    parts.
    """

    loads_model: ClassVar[bool] = True

    name: str = "clipseg"
    model: str = not_hashed("CIDAS/clipseg-rd64-refined")
    revision: str | None = not_hashed(None)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: AtLeastOne = not_hashed(64)
    feature_cache_gb: Annotated[float, Ge(0)] = not_hashed(0.5)

    def check(self) -> None:
        """See `Simulator`. Raises ModelError if the model is missing or is not a CLIPSeg."""
        check_folder(self.model, _KIND, _SETTING)
        self.weights()

    def weights(self) -> str:
        """See `Simulator`."""
        return weights_revision(self.model, self.revision, _SETTING)

    def load(self, device: str = "cpu", threads: int | None = None) -> Simulator:
        """See `Simulator`."""
        from neuron_atlas.tasks.simulate.heat_maps import HeatMaps
        from neuron_atlas.tasks.simulate.segmenter import load_segmenter

        segmenter = load_segmenter(
            self.model, self.revision, self.dtype, device, threads, setting=_SETTING
        )
        return HeatMaps(
            segmenter, self.name, batch_size=self.batch_size, feature_cache_gb=self.feature_cache_gb
        )

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Loads the model for these requests only. Raises ModelError."""
        return self.load().simulate(requests, catalog, calls)
