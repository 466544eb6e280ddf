"""Run CLIPSeg in parts, so that each image is encoded once for all explanations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import (
    AutoConfig,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
)

from neuron_atlas.tasks.artifacts.regions import Region, grid_shares
from neuron_atlas.tasks.models.pretrained import (
    ModelError,
    check_complete,
    check_kind,
    saved_folder,
    why_not_loaded,
)
from neuron_atlas.tasks.subject.geometry import visible_box

_TEXT_BATCH_SIZE = 256

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in px of an image."""


class Segmenter:
    """CLIPSeg model on one device.

    The image encoder, by far the largest part, runs once for each image. The text encoder runs once
    for each explanation. Only the small decoder runs for each pair of them.
    """

    def __init__(self, model: CLIPSegForImageSegmentation, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor
        self._layers = list(model.extract_layers)
        self.longest_text = int(model.config.text_config.max_position_embeddings)
        # The decoder does not read the last layers.
        encoder = model.clip.vision_model.encoder
        encoder.layers = encoder.layers[: max(self._layers) + 1]
        # The decoder's first step reduces the image features, independent of the explanation. It
        # moves to `encode_images`, to run once for each image.
        self._reduce = model.decoder.reduces
        model.decoder.reduces = nn.ModuleList(nn.Identity() for _ in self._layers)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the decoder's features of images, [images, layers, positions, width]."""
        pixels = self._processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        hidden = self._model.clip.vision_model(
            pixels.to(self._model.device, self._model.dtype), output_hidden_states=True
        ).hidden_states
        # The decoder reads the layers from last to first.
        states = [hidden[layer + 1] for layer in reversed(self._layers)]
        reduced = [reduce(state) for reduce, state in zip(self._reduce, states, strict=True)]
        return torch.stack(reduced, dim=1)

    def covered_box(self, image: Image.Image) -> Box:
        """Return the part of an image that its map covers: all, unless the processor crops."""
        return visible_box(self._processor.image_processor, image.width, image.height)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        """Return the decoder's embeddings of texts [texts, width], and for each text whether it was
        cut at `longest_text` tokens."""
        tokenizer = self._processor.tokenizer
        is_cut = [len(ids) > self.longest_text for ids in tokenizer(list(texts))["input_ids"]]
        embeddings = []
        for start in range(0, len(texts), _TEXT_BATCH_SIZE):
            batch = list(texts[start : start + _TEXT_BATCH_SIZE])
            tokens = tokenizer(
                batch,
                padding=True,
                truncation=True,
                max_length=self.longest_text,
                return_tensors="pt",
            ).to(self._model.device)
            embeddings.append(
                self._model.get_conditional_embeddings(
                    batch_size=len(batch),
                    input_ids=tokens["input_ids"],
                    attention_mask=tokens["attention_mask"],
                )
            )
        return torch.cat(embeddings), is_cut

    @torch.inference_mode()
    def heat_maps(self, features: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the probability of a text at each pixel, float32 [pairs, rows, columns].

        features, embeddings: from `encode_images` and `encode_texts`, one row for each pair.
        """
        states = tuple(features[:, layer] for layer in reversed(range(features.shape[1])))
        return torch.sigmoid(self._model.decoder(states, embeddings).logits.float())


def mean_over_tokens(maps: torch.Tensor, covered: Box, region: Region) -> torch.Tensor:
    """Return the mean of maps [maps, rows, columns] over each visual token's box, float32 [maps,
    tokens].

    covered: the part of the image that the maps cover. A map is 0 outside it, as in the subject's
    padding. So a token that is half padding gets half the mean of its other half.
    """
    left, top, right, bottom = covered
    down = [(edge - top) / (bottom - top) for edge in (region.top, region.bottom)]
    across = [(edge - left) / (right - left) for edge in (region.left, region.right)]
    rows, columns = (
        torch.from_numpy(shares.astype(np.float32)).to(maps.device)
        for shares in (
            grid_shares(region.rows, down[0], down[1], maps.shape[1]),
            grid_shares(region.columns, across[0], across[1], maps.shape[2]),
        )
    )
    return (rows @ maps @ columns.T).flatten(1)


def load_segmenter(
    model: str,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    *,
    setting: str,
) -> Segmenter:
    """Load a CLIPSeg from safetensors only, without remote code. Raises ModelError.

    setting: name of the setting that holds the model, for messages. threads: of this process on a
    CPU; None leaves them unchanged.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    where = str(saved_folder(model, setting) or model)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
        check_kind(where, config.model_type, CLIPSegConfig.model_type, setting)
        loaded, weights = CLIPSegForImageSegmentation.from_pretrained(
            where,
            revision=revision,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        check_complete(where, setting, weights["missing_keys"])
        # The Pillow backend yields the same pixels on every machine.
        processor = CLIPSegProcessor.from_pretrained(
            where, revision=revision, trust_remote_code=False, backend="pil"
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(why_not_loaded(model, setting, error)) from error
    return Segmenter(loaded.to(device), processor)
