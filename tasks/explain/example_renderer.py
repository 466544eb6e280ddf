"""Render a neuron's prompt examples as the messages for a chat model."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, normalize_to_ten
from neuron_atlas.tasks.explain.draw import Render, draw_plain, draw_view
from neuron_atlas.tasks.explain.examples import ChosenExamples, peak_level
from neuron_atlas.tasks.explain.mark import list_strongest, mark_tokens
from neuron_atlas.tasks.explain.prompt import RenderedExample, first_messages
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.opened import open_view

_CACHED_VIEWS = 128
_CACHED_SIZE = {"heat": 1, "mask": 1, "crop": 2}
"""Longest side of a cached view, in multiples of `size`; a crop is an enlarged part of it."""


class ExampleRenderer:
    """Renderer of prompt examples. Caches opened images, since neurons share samples."""

    def __init__(self, catalog: Catalog, render: Render, image_size: int, detail: str) -> None:
        self._catalog = catalog
        self._render = render
        self._size = image_size
        self._detail = detail
        self._view = lru_cache(maxsize=_CACHED_VIEWS)(self._open_view)

    def first_messages(self, evidence: Evidence, examples: ChosenExamples) -> list[dict[str, Any]]:
        """Return the messages that ask about a neuron. Raises UnopenableError if an image is
        bad."""
        samples = [self._render_one(evidence, sample) for sample in examples.active]
        samples += [
            self._render_one(evidence, sample, is_contrast=True) for sample in examples.contrasts
        ]
        return first_messages(evidence.type, samples, self._detail, self._render)

    def _render_one(
        self, evidence: Evidence, record: ActivationRecord, is_contrast: bool = False
    ) -> RenderedExample:
        sample = self._catalog[record.sample_id]
        picture = text = None
        if evidence.type != "text" and sample.regions:
            view, scale = self._view(record.sample_id)
            if is_contrast:
                picture = draw_plain(view, self._size)
            else:
                boxes = token_boxes(sample.view.regions) * scale
                tens = normalize_to_ten(record.visual, evidence.scale)
                picture = draw_view(self._render, view, boxes, tens, self._size)
        if evidence.type != "visual":
            tens = np.zeros(len(record.text))
            if not is_contrast:
                tens = normalize_to_ten(record.text, evidence.scale)
            text = mark_tokens(sample.tokens, tens)
            if strongest := list_strongest(sample.tokens, tens):
                text += f"\nStrongest tokens: {strongest}"
        return RenderedExample(picture, text, 0 if is_contrast else peak_level(record, evidence))

    def _open_view(self, sample_id: int) -> tuple[Image.Image, float]:
        """Return a sample's view as cached, and its scale relative to the original."""
        view = open_view(self._catalog, sample_id)
        scale = min(1.0, _CACHED_SIZE[self._render] * self._size / max(view.size))
        width, height = (max(1, round(side * scale)) for side in view.size)
        if scale < 1:
            view = view.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return view, scale
