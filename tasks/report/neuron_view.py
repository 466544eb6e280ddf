"""Render a neuron as HTML, from one template for the page and the notebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.evidence.evidence import normalize_to_ten
from neuron_atlas.tasks.report.pages import stylesheet, template_environment
from neuron_atlas.tasks.report.pictures import data_uri, heat_map, jpeg_bytes, open_scaled_view
from neuron_atlas.tasks.report.record import Exemplar, NeuronRecord
from neuron_atlas.tasks.report.wording import three_digits

LARGEST_SIDE = 320
"""Longest side of an image on a page, in pixels. Smaller images keep their size."""
_EXCERPT = 44
_LONGEST_UNCUT = 66
"""Longest text shown in full, in tokens. Of a longer one, an excerpt around the strongest token."""
_LONGEST_WORD = 8
_VISUAL = ROLES.index("visual")
_NO_TEXT = np.empty(0, np.float32)


@dataclass(frozen=True)
class Picture:
    """An exemplar's image: its URL in the page and size in pixels, or why there is none."""

    src: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def neuron_html(record: NeuronRecord) -> str:
    """Return the neuron as self-contained HTML that does not affect the rest of the document."""
    exemplars = [exemplar_data(one, inline_picture(one)) for one in record.exemplars]
    template = template_environment().get_template("notebook.html")
    return template.render(record=record, exemplars=exemplars, style=stylesheet(".neuron-atlas"))


def exemplar_data(exemplar: Exemplar, picture: Picture) -> dict[str, Any]:
    """Return an exemplar as data for the template.

    tokens: (leading space, word, activation 0-10, activation as text) of each token. excerpt: start
    and stop of the tokens shown at first. shape: proportions of the image, width and height. box:
    left, top, width, height of the strongest patch in percent, or None if the peak is in the text.
    has_trace: whether activations are stored; without them there is no heat map.
    """
    tokens = _tokens(exemplar)
    heat = None if exemplar.trace is None else exemplar.heat
    in_image = exemplar.peak_role == _VISUAL
    return {
        "rank": exemplar.rank,
        "sample_id": exemplar.sample_id,
        "source_id": exemplar.sample.source_id if exemplar.sample else "",
        "picture": picture,
        "shape": _shape(exemplar, picture),
        "heat": "" if heat is None else heat_map(heat),
        "heat_words": "" if heat is None else _heat_words(heat),
        "peak": exemplar.peak,
        "place": "in the image" if in_image else f"at {_strongest_word(exemplar)}",
        "box": _patch_box(exemplar) if in_image and exemplar.peak > 0 else None,
        "has_trace": exemplar.trace is not None,
        "tokens": tokens,
        "excerpt": _strongest_stretch(tokens, exemplar),
    }


def inline_picture(exemplar: Exemplar) -> Picture:
    """Return an exemplar's image as a data URI, or why there is none."""
    view, problem = open_scaled_view(exemplar.catalog, exemplar.sample_id, LARGEST_SIDE)
    if view is None:
        return Picture(problem=problem)
    return Picture(data_uri("image/jpeg", jpeg_bytes(view)), view.width, view.height)


def _tokens(exemplar: Exemplar) -> list[tuple[str, str, float, str]]:
    text = _NO_TEXT if exemplar.trace is None else exemplar.trace.text
    tens = normalize_to_ten(text, exemplar.scale)
    rows = []
    for position, piece in enumerate(exemplar.tokens):
        word = piece.lstrip()
        space = piece[: len(piece) - len(word)] if word else ""
        # The subject never saw the end of a truncated text.
        known = position < len(tens)
        ten = round(min(float(tens[position]), 10.0), 2) if known else 0.0
        activation = three_digits(float(text[position])) if known else ""
        rows.append((space, word or piece, ten, activation))
    return rows


def _strongest_stretch(
    tokens: list[tuple[str, str, float, str]], exemplar: Exemplar
) -> tuple[int, int]:
    if len(tokens) <= _LONGEST_UNCUT:
        return 0, len(tokens)
    strongest = max(range(len(tokens)), key=lambda position: tokens[position][2])
    if exemplar.trace is None and exemplar.peak_role != _VISUAL:
        strongest = min(exemplar.peak_token, len(tokens) - 1)
    start = min(max(strongest - _EXCERPT // 2, 0), len(tokens) - _EXCERPT)
    # Start at a whole word, if one starts nearby.
    near = (position for position in range(start, start - _LONGEST_WORD, -1) if position >= 0)
    start = next((position for position in near if position == 0 or tokens[position][0]), start)
    return start, start + _EXCERPT


def _strongest_word(exemplar: Exemplar) -> str:
    position, tokens = exemplar.peak_token, exemplar.tokens
    word = tokens[position].strip() if position < len(tokens) else f"token {position}"
    return f"\N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}"


def _heat_words(heat: np.ndarray) -> str:
    rows, columns = heat.shape
    over = f"Heat map over {rows} by {columns} patches"
    if heat.max() <= 0:
        return f"{over}: silent everywhere"
    row, column = divmod(int(heat.argmax()), columns)
    return f"{over}, strongest ({heat.max():.1f} of 10) in row {row + 1}, column {column + 1}"


def _patch_box(exemplar: Exemplar) -> tuple[float, float, float, float] | None:
    """Return left, top, width, height of the strongest token's patch, in percent of the view.

    None if the sample has other visual tokens than when it was captured.
    """
    sample, trace = exemplar.sample, exemplar.trace
    if sample is None or exemplar.peak_token >= sample.n_visual:
        return None
    if trace is not None and len(trace.visual) != sample.n_visual:
        return None
    view = sample.view
    left, top, right, bottom = token_boxes(view.regions)[exemplar.peak_token].tolist()
    across, down = 100 / view.width, 100 / view.height
    return left * across, top * down, (right - left) * across, (bottom - top) * down


def _shape(exemplar: Exemplar, picture: Picture) -> tuple[int, int]:
    """Return the proportions of the image, even if the image itself is lost."""
    if picture.width and picture.height:
        return picture.width, picture.height
    if exemplar.sample is not None and exemplar.sample.regions:
        return exemplar.sample.view.width, exemplar.sample.view.height
    return 1, 1
