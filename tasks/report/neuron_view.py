"""A neuron as HTML: what the page and the notebook show of its record, from one template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.evidence.evidence import to_ten
from neuron_atlas.tasks.report.pages import environment, stylesheet
from neuron_atlas.tasks.report.pictures import data_uri, heat_map, jpeg_bytes, open_view
from neuron_atlas.tasks.report.record import Exemplar, NeuronRecord
from neuron_atlas.tasks.report.wording import digits3

LARGEST_SIDE = 320
"""Pixels that a page's image has at most; smaller ones are kept as they are."""
_EXCERPT = 44
_LONGEST_UNCUT = 66
"""Tokens of a text that are shown at once; a longer one is cut to an excerpt around its strongest
token."""
_LONGEST_WORD = 8


@dataclass(frozen=True)
class Picture:
    """An exemplar's image: its address in the page, and its size in px; or why there is none."""

    src: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def neuron_html(record: NeuronRecord) -> str:
    """The neuron as a piece of HTML that needs nothing else and leaves its surroundings alone."""
    shown = [show_exemplar(one, _inline(one)) for one in record.exemplars]
    template = environment().get_template("notebook.html")
    return template.render(record=record, exemplars=shown, style=stylesheet(".neuron-atlas"))


def show_exemplar(exemplar: Exemplar, picture: Picture) -> dict[str, Any]:
    """What the template shows of an exemplar.

    tokens: (space before, word, 0-10, activation in words) of the whole text. excerpt: from and to
    which of them is shown at first. shape: width and height to show the picture at, in any unit.
    box: left, top, width, height of the strongest patch in percent, if the peak is in the image.
    """
    tokens = _tokens(exemplar)
    visual, text, heat = exemplar.visual, exemplar.text, exemplar.heat
    in_image = bool(len(visual)) and (not len(text) or visual.max() >= text.max())
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
        "box": _patch_box(exemplar)
        if in_image and heat is not None and exemplar.peak > 0
        else None,
        "tokens": tokens,
        "excerpt": _strongest_stretch(tokens),
    }


def _inline(exemplar: Exemplar) -> Picture:
    view, problem = open_view(exemplar.catalog, exemplar.sample_id, LARGEST_SIDE)
    if view is None:
        return Picture(problem=problem)
    return Picture(data_uri("image/jpeg", jpeg_bytes(view)), view.width, view.height)


def _tokens(exemplar: Exemplar) -> list[tuple[str, str, float, str]]:
    tens = to_ten(exemplar.text, exemplar.scale)
    shown = []
    for place, piece in enumerate(exemplar.tokens):
        word = piece.lstrip()
        space = piece[: len(piece) - len(word)] if word else ""
        # A text that was cut short has tokens that the subject was never shown.
        known = place < len(tens)
        ten = round(min(float(tens[place]), 10.0), 2) if known else 0.0
        activation = digits3(float(exemplar.text[place])) if known else ""
        shown.append((space, word or piece, ten, activation))
    return shown


def _strongest_stretch(tokens: list[tuple[str, str, float, str]]) -> tuple[int, int]:
    if len(tokens) <= _LONGEST_UNCUT:
        return 0, len(tokens)
    strongest = max(range(len(tokens)), key=lambda place: tokens[place][2])
    start = min(max(strongest - _EXCERPT // 2, 0), len(tokens) - _EXCERPT)
    # Begin with a whole word, if one begins near by.
    near = (place for place in range(start, start - _LONGEST_WORD, -1) if place >= 0)
    start = next((place for place in near if place == 0 or tokens[place][0]), start)
    return start, start + _EXCERPT


def _strongest_word(exemplar: Exemplar) -> str:
    place = int(exemplar.text.argmax()) if len(exemplar.text) else 0
    tokens = exemplar.tokens
    word = tokens[place].strip() if place < len(tokens) else f"token {place}"
    return f"\N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}"


def _heat_words(heat: np.ndarray) -> str:
    rows, columns = heat.shape
    over = f"Heat map over {rows} by {columns} patches"
    if heat.max() <= 0:
        return f"{over}: silent everywhere"
    row, column = divmod(int(heat.argmax()), columns)
    return f"{over}, strongest ({heat.max():.1f} of 10) in row {row + 1}, column {column + 1}"


def _patch_box(exemplar: Exemplar) -> tuple[float, float, float, float]:
    """Left, top, width, height in percent of the view of what the strongest token looks at."""
    assert exemplar.sample is not None
    view = exemplar.sample.view
    left, top, right, bottom = token_boxes(view.regions)[int(exemplar.visual.argmax())].tolist()
    across, down = 100 / view.width, 100 / view.height
    return left * across, top * down, (right - left) * across, (bottom - top) * down


def _shape(exemplar: Exemplar, picture: Picture) -> tuple[int, int]:
    """The picture's proportions, also where its image is lost."""
    if picture.width and picture.height:
        return picture.width, picture.height
    if exemplar.sample is not None and exemplar.sample.regions:
        return exemplar.sample.view.width, exemplar.sample.view.height
    return 1, 1
