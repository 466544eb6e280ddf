"""CLIPSeg taken apart: an image is looked at once, however many explanations are asked of it."""

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
from neuron_atlas.tasks.subject.geometry import image_view

_TEXTS_AT_ONCE = 256

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, px of an image."""


class Segmenter:
    """A CLIPSeg on one device.

    Of its three parts the image's is by far the largest (the vision transformer), the text's runs
    once for each explanation, and only the small decoder has to run for each pair of them.
    """

    def __init__(self, model: CLIPSegForImageSegmentation, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor
        self._layers = list(model.extract_layers)
        self.longest_text = int(model.config.text_config.max_position_embeddings)
        # Nothing reads what the last layers see.
        encoder = model.clip.vision_model.encoder
        encoder.layers = encoder.layers[: max(self._layers) + 1]
        # The decoder first narrows what the layers saw, which does not depend on the explanation
        # either. So it is done once an image, and the decoder is given what comes of it.
        self._narrow = model.decoder.reduces
        model.decoder.reduces = nn.ModuleList(nn.Identity() for _ in self._layers)

    @torch.inference_mode()
    def look(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """What the decoder needs of images [images, layers, positions, width]."""
        pixels = self._processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        seen = self._model.clip.vision_model(
            pixels.to(self._model.device, self._model.dtype), output_hidden_states=True
        ).hidden_states
        # The decoder goes from the last layer to the first.
        states = [seen[layer + 1] for layer in reversed(self._layers)]
        narrowed = [narrow(state) for narrow, state in zip(self._narrow, states, strict=True)]
        return torch.stack(narrowed, dim=1)

    def covered(self, image: Image.Image) -> Box:
        """What of an image its map covers: all of it, unless the model's processor crops."""
        return image_view(self._processor.image_processor, image.width, image.height)

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        """Texts as the decoder is told them [texts, width], and which were cut at `longest_text`
        tokens."""
        tokenizer = self._processor.tokenizer
        cut = [len(ids) > self.longest_text for ids in tokenizer(list(texts))["input_ids"]]
        told = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            few = list(texts[start : start + _TEXTS_AT_ONCE])
            tokens = tokenizer(
                few,
                padding=True,
                truncation=True,
                max_length=self.longest_text,
                return_tensors="pt",
            ).to(self._model.device)
            told.append(
                self._model.get_conditional_embeddings(
                    batch_size=len(few),
                    input_ids=tokens["input_ids"],
                    attention_mask=tokens["attention_mask"],
                )
            )
        return torch.cat(told), cut

    @torch.inference_mode()
    def heat(self, seen: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """Probability of a text at each pixel, float32 [pairs, rows, columns].

        seen, told: what `look` and `read` gave, a row for each pair.
        """
        states = tuple(seen[:, layer] for layer in reversed(range(seen.shape[1])))
        return torch.sigmoid(self._model.decoder(states, told).logits.float())


def mean_over_tokens(heat: torch.Tensor, covered: Box, region: Region) -> torch.Tensor:
    """The mean of maps [maps, rows, columns] over each visual token's box, float32 [maps, tokens].

    covered: what of the image the maps are of. Beyond it a map is 0, as where a subject sees
    padding; so a token that looks half at padding is predicted half of what is seen beside it.
    """
    left, top, right, bottom = covered
    down = [(edge - top) / (bottom - top) for edge in (region.top, region.bottom)]
    across = [(edge - left) / (right - left) for edge in (region.left, region.right)]
    rows, columns = (
        torch.from_numpy(shares.astype(np.float32)).to(heat.device)
        for shares in (
            grid_shares(region.rows, down[0], down[1], heat.shape[1]),
            grid_shares(region.columns, across[0], across[1], heat.shape[2]),
        )
    )
    return (rows @ heat @ columns.T).flatten(1)


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

    setting: what names the model, for messages. threads: of this process's computations on a CPU;
    None leaves them as they are.
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
        # With Pillow, so that the same pixels are seen on every machine.
        processor = CLIPSegProcessor.from_pretrained(
            where, revision=revision, trust_remote_code=False, backend="pil"
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(why_not_loaded(model, setting, error)) from error
    return Segmenter(loaded.to(device), processor)
