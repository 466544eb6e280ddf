"""Turns a neuron's examples into what a chat model is sent."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.evidence.evidence import Evidence, Excitation, to_ten
from neuron_atlas.tasks.explain.draw import Render, draw, draw_plain
from neuron_atlas.tasks.explain.examples import ChosenExamples, peak_level
from neuron_atlas.tasks.explain.mark import mark_tokens
from neuron_atlas.tasks.explain.prompt import RenderedExample, first_messages
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.opened import open_view

_VIEWS_KEPT = 128
_KEPT_SIZE = {"heat": 1, "mask": 1, "crop": 2}
"""Longer side of a view that is kept, at most, in sizes of what is drawn: a crop enlarges it."""


class ExampleRenderer:
    """Draws and words samples; opened images are kept, for neurons share their samples."""

    def __init__(self, catalog: Catalog, render: Render, image_size: int, detail: str) -> None:
        self._catalog = catalog
        self._render = render
        self._size = image_size
        self._detail = detail
        self._view = lru_cache(maxsize=_VIEWS_KEPT)(self._open_view)

    def first_messages(self, evidence: Evidence, examples: ChosenExamples) -> list[dict[str, Any]]:
        """The question about a neuron. Raises Unopenable."""
        samples = [self._show(evidence, seen) for seen in examples.active]
        samples += [self._show(evidence, seen, contrast=True) for seen in examples.contrasts]
        return first_messages(evidence.type, samples, self._detail, self._render)

    def _show(
        self, evidence: Evidence, seen: Excitation, contrast: bool = False
    ) -> RenderedExample:
        sample = self._catalog[seen.sample_id]
        picture = text = None
        if evidence.type != "text" and sample.regions:
            view, scale = self._view(seen.sample_id)
            if contrast:
                picture = draw_plain(view, self._size)
            else:
                boxes = token_boxes(sample.view.regions) * scale
                tens = to_ten(seen.visual, evidence.scale)
                picture = draw(self._render, view, boxes, tens, self._size)
        if evidence.type != "visual":
            tens = np.zeros(len(seen.text)) if contrast else to_ten(seen.text, evidence.scale)
            text = mark_tokens(sample.tokens, tens)
        return RenderedExample(picture, text, 0 if contrast else peak_level(seen, evidence))

    def _open_view(self, sample_id: int) -> tuple[Image.Image, float]:
        """A sample's view, and how much smaller than the original it is kept."""
        view = open_view(self._catalog, sample_id)
        scale = min(1.0, _KEPT_SIZE[self._render] * self._size / max(view.size))
        width, height = (max(1, round(side * scale)) for side in view.size)
        if scale < 1:
            view = view.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return view, scale
