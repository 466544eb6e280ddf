"""A simulator that asks an open-vocabulary segmentation model where an explanation is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.pretrained import check_folder, weights_revision
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne, runtime
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

_KIND = "clipseg"
"""The name of such models in transformers."""
_SETTING = "simulate.model"


@dataclass(frozen=True)
class ClipSeg(Simulator):
    """Settings of the simulator: CLIPSeg (Lueddecke and Ecker 2022) draws for an explanation a map
    of how probable it is at each pixel, and a visual token is predicted the mean of the map over
    its box. It says nothing of text tokens.

    Probabilities and not logits, for samples are scored together: a logit has no bound, so that one
    image could decide a score, and padding, where nothing is seen, has a probability: 0.

    model: a folder or a Hugging Face id; revision: a commit or tag of the latter. dtype: the number
    format of weights. batch_size: maps drawn at once, halved where memory runs out. features_gb:
    memory (10^9 bytes) of each copy of the model for what it saw in images, which parts share.
    """

    loads_model: ClassVar[bool] = True

    name: str = "clipseg"
    model: str = runtime("CIDAS/clipseg-rd64-refined")
    revision: str | None = runtime(None)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: AtLeastOne = runtime(64)
    features_gb: Annotated[float, Ge(0)] = runtime(0.5)

    def check(self) -> None:
        """See `Simulator`: there must be such a model. Raises ModelError."""
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
            segmenter, self.name, batch_size=self.batch_size, features_gb=self.features_gb
        )

    def simulate(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Loads the model for these questions alone."""
        return self.load().simulate(questions, catalog, calls)
