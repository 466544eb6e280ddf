"""What a page says of one neuron, gathered from the tables as plain values for a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts import TYPE_COLUMNS
from neuron_atlas.tasks.artifacts.regions import heat_over, token_boxes
from neuron_atlas.tasks.evidence.evidence import to_ten
from neuron_atlas.tasks.report.heat import SavedView, heat_map
from neuron_atlas.tasks.report.wording import digits3
from neuron_atlas.tasks.samples.catalog import Catalog, Sample

_EXCERPT = 44
_LONGEST_UNCUT = 66
"""Tokens of a text that are shown at once; a longer one is cut to an excerpt around its strongest
token."""
_LONGEST_WORD = 8
_UNSAID = {"text": "", "status": "missing", "reason": "", "confidence": None}


@dataclass(frozen=True)
class Token:
    """A token of a text: its words without and its space before; 0-10 and raw activation."""

    space: str
    text: str
    ten: float
    activation: str


@dataclass(frozen=True)
class Exemplar:
    """One sample that excites a neuron, ready to be shown."""

    rank: int
    sample_id: int
    source_id: str
    view: SavedView
    shape: tuple[int, int]
    """Width and height to show the view at, in any unit."""
    heat: str
    heat_words: str
    peak: float
    peak_ten: float
    peak_place: str
    peak_box: tuple[float, float, float, float] | None
    """Left, top, width, height of the strongest patch in percent, if the peak is in the image."""
    excerpt: tuple[Token, ...]
    cut_before: bool
    cut_after: bool
    whole_text: tuple[Token, ...]
    """The whole text where the excerpt is cut, else empty."""


@dataclass(frozen=True)
class ScoredExplanation:
    """What one explainer said, and how each simulator scored it; rows of the two tables.

    A score is that over all tokens; under `parts` it has those over the visual and text ones.
    """

    explanation: Mapping[str, Any]
    scores: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Entry:
    """One neuron."""

    layer: int
    neuron: int
    type: str
    shares: Mapping[str, float]
    n_exemplars: int
    scale: float
    accounts: tuple[ScoredExplanation, ...]
    exemplars: tuple[Exemplar, ...] = field(default=())

    @property
    def anchor(self) -> str:
        """The name by which the page can be linked to at this neuron."""
        return f"n-{self.layer}-{self.neuron}"


def describe_neuron(
    row: Mapping[str, Any],
    explanations: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]],
    exemplars: tuple[Exemplar, ...],
) -> Entry:
    """Gather one neuron from its rows of `types`, `explanations` and `scores`."""
    return Entry(
        layer=row["layer"],
        neuron=row["neuron"],
        type=row["type"],
        shares={name: row[column] or 0.0 for name, column in TYPE_COLUMNS.items()},
        n_exemplars=row["n_exemplars"],
        scale=row["scale"],
        accounts=_pair_up(explanations, scores),
        exemplars=exemplars,
    )


def describe_exemplar(
    trace: Mapping[str, Any], scale: float, catalog: Catalog, see: Callable[[int], SavedView]
) -> Exemplar:
    """Make one row of `traces` visible; `see` gives the image of a sample id."""
    visual, text = (np.asarray(trace[role], dtype=np.float32) for role in ("visual", "text"))
    sample = catalog.samples.get(trace["sample_id"])
    view = see(trace["sample_id"])
    patches = None
    if sample is not None and len(visual):
        patches = heat_over(sample.view, to_ten(visual, scale))
    tokens = _tokens(sample, text, scale)
    start, stop = _strongest_stretch(tokens)
    cut = (start, stop) != (0, len(tokens))
    in_image = bool(len(visual)) and (not len(text) or visual.max() >= text.max())
    peak = float(max(visual.max(initial=-np.inf), text.max(initial=-np.inf)))
    box = _patch_box(sample, int(visual.argmax())) if in_image and sample is not None else None
    word = f"\N{LEFT DOUBLE QUOTATION MARK}{_word(tokens, text)}\N{RIGHT DOUBLE QUOTATION MARK}"
    return Exemplar(
        rank=trace["rank"],
        sample_id=trace["sample_id"],
        source_id=sample.source_id if sample else "",
        view=view,
        shape=_shape(view, sample),
        heat=heat_map(patches) if patches is not None else "",
        heat_words=_heat_words(patches) if patches is not None else "",
        peak=peak,
        peak_ten=float(to_ten(np.array([peak]), scale)[0]),
        peak_place="in the image" if in_image else f"at {word}",
        peak_box=box,
        excerpt=tokens[start:stop],
        cut_before=start > 0,
        cut_after=stop < len(tokens),
        whole_text=tokens if cut else (),
    )


def _pair_up(
    explanations: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> tuple[ScoredExplanation, ...]:
    explainers = dict.fromkeys(row["explainer"] for row in (*explanations, *scores))
    said = {row["explainer"]: row for row in explanations}
    return tuple(
        ScoredExplanation(
            said.get(name) or _UNSAID | {"explainer": name},
            _with_parts([row for row in scores if row["explainer"] == name]),
        )
        for name in explainers
    )


def _with_parts(scores: list[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {
            **whole,
            "parts": [
                row
                for row in scores
                if row["tokens"] != "all" and row["simulator"] == whole["simulator"]
            ],
        }
        for whole in scores
        if whole["tokens"] == "all"
    )


def _tokens(sample: Sample | None, text: np.ndarray, scale: float) -> tuple[Token, ...]:
    if sample is None:
        return ()
    tens = to_ten(text, scale)
    shown = []
    for place, piece in enumerate(sample.tokens):
        word = piece.lstrip()
        space = piece[: len(piece) - len(word)] if word else ""
        # A text that was cut short has tokens that the subject was never shown.
        known = place < len(text)
        shown.append(
            Token(
                space,
                word or piece,
                round(min(float(tens[place]), 10.0), 2) if known else 0.0,
                digits3(float(text[place])) if known else "",
            )
        )
    return tuple(shown)


def _strongest_stretch(tokens: tuple[Token, ...]) -> tuple[int, int]:
    if len(tokens) <= _LONGEST_UNCUT:
        return 0, len(tokens)
    strongest = max(range(len(tokens)), key=lambda place: tokens[place].ten)
    start = min(max(strongest - _EXCERPT // 2, 0), len(tokens) - _EXCERPT)
    # Begin with a whole word, if one begins near by.
    near = (place for place in range(start, start - _LONGEST_WORD, -1) if place >= 0)
    start = next((place for place in near if place == 0 or tokens[place].space), start)
    return start, start + _EXCERPT


def _word(tokens: tuple[Token, ...], text: np.ndarray) -> str:
    place = int(text.argmax()) if len(text) else 0
    return tokens[place].text.strip() if place < len(tokens) else f"token {place}"


def _heat_words(patches: np.ndarray) -> str:
    rows, columns = patches.shape
    if patches.max() <= 0:
        return f"Heat map over {rows} by {columns} patches: silent everywhere"
    row, column = divmod(int(patches.argmax()), columns)
    return (
        f"Heat map over {rows} by {columns} patches, strongest ({patches.max():.1f} of 10) "
        f"in row {row + 1}, column {column + 1}"
    )


def _patch_box(sample: Sample, token: int) -> tuple[float, float, float, float]:
    """Left, top, width, height in percent of the view of what a visual token looks at."""
    left, top, right, bottom = token_boxes(sample.view.regions)[token].tolist()
    across, down = 100 / sample.view.width, 100 / sample.view.height
    return left * across, top * down, (right - left) * across, (bottom - top) * down


def _shape(view: SavedView, sample: Sample | None) -> tuple[int, int]:
    """The view's proportions, also where its image is lost."""
    if view.width and view.height:
        return view.width, view.height
    if sample is not None and sample.regions:
        return sample.view.width, sample.view.height
    return 1, 1
