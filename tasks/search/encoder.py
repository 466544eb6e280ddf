"""A CLIP-like model: embeddings of images and of texts in one space."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor

from neuron_atlas.tasks.models.pretrained import (
    ModelError,
    check_complete,
    check_kind,
    saved_folder,
    why_not_loaded,
)
from neuron_atlas.tasks.search.settings import KINDS, MODEL_SETTING

_FULL_LENGTH = ("siglip", "siglip2")
"""Kinds that were trained on texts padded to the full length."""


class Encoder:
    """A CLIP-like model on one device."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor
        config = model.config
        self._longest = int(config.text_config.max_position_embeddings)
        self._padding = "max_length" if config.model_type in _FULL_LENGTH else True
        self.width = int(self.embed_texts(["."]).shape[1])

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device(self._model.device)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the embeddings of RGB images: float32 [images, width], of length 1."""
        inputs = self._processor.image_processor(list(images), return_tensors="pt")
        return self._unit(self._model.get_image_features(**self._placed(inputs)))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings of texts: float32 [texts, width], of length 1. Cuts long ones."""
        inputs = self._processor.tokenizer(
            list(texts),
            padding=self._padding,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        )
        return self._unit(self._model.get_text_features(**self._placed(inputs)))

    def _placed(self, inputs: Any) -> dict[str, torch.Tensor]:
        kind = self._model.dtype
        return {
            name: value.to(self.device, kind if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    @staticmethod
    def _unit(output: Any) -> np.ndarray:
        features = output.pooler_output.float()
        return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()


def load_encoder(model: str, device: str = "cpu", threads: int | None = None) -> Encoder:
    """Load a CLIP-like model from safetensors only, without remote code. Raises ModelError.

    model: a folder or a Hugging Face id. threads: of this process on a CPU; None leaves them
    unchanged.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    where = str(saved_folder(model, MODEL_SETTING) or model)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        check_kind(where, config.model_type, KINDS, MODEL_SETTING)
        loaded, weights = AutoModel.from_pretrained(
            where,
            dtype=torch.float32 if device == "cpu" else torch.float16,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        check_complete(where, MODEL_SETTING, weights["missing_keys"])
        # The Pillow backend yields the same pixels on every machine.
        processor = AutoProcessor.from_pretrained(where, trust_remote_code=False, backend="pil")
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(why_not_loaded(model, MODEL_SETTING, error)) from error
    return Encoder(loaded.to(device), processor)
