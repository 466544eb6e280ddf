"""Settings of the `search` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_atlas.tasks.models.pretrained import check_folder, weights_revision
from neuron_atlas.tasks.settings import AtLeastOne, not_hashed

KINDS = ("clip", "siglip", "siglip2")
"""`model_type` in transformers of the models that embed images and texts in one space."""
MODEL_SETTING = "search.model"


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the `search` stage.

    exemplars: strongest exemplars whose peaks make a neuron's vector. neighbors: nearest neurons
    that are stored for each neuron and role. model: a folder or a Hugging Face id of a CLIP or
    SigLIP, whose embeddings take the place of the subject's; None for the subject's.
    """

    exemplars: AtLeastOne = 20
    neighbors: AtLeastOne = 10
    model: str | None = not_hashed(None)

    def check(self) -> None:
        """Raise ModelError if the model is missing or is of another kind."""
        if self.model is not None:
            check_folder(self.model, KINDS, MODEL_SETTING)
            self.weights()

    def weights(self) -> str | None:
        """Return what identifies the model's weights; None without a model. Raises ModelError."""
        if self.model is None:
            return None
        return weights_revision(self.model, None, MODEL_SETTING)
