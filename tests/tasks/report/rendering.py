"""Renders the report page and reads it back."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from neuron_atlas.tasks.report.page import Heading, PageInputs
from tests.tasks.report.synthetic import (
    aggregates,
    catalog,
    explanations,
    neuron_types,
    sample,
    scores,
    trace,
    traces,
)

ATTACK = "<script>alert(1)</script>\"' onload=x <img src=q>"
HEADING = Heading(
    title="Drawn scenes",
    subject="llava-scenes",
    dataset="1,000 scenes",
    when="23 November 2026",
    fingerprint="9f2c01",
    facts=(("samples", "1,000"),),
)
VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Every element of a page with its attributes and words; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("dt", "dd", "td", "th"):
            self.words += " "

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.words += data

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.found if t == tag and name in (a.get("class") or "")]


def inputs(**changes) -> PageInputs:
    """One visual neuron with two exemplars of the same sample size, explained and scored."""
    grid = np.zeros((2, 3))
    grid[1, 2] = 2.0
    made = PageInputs(
        heading=HEADING,
        types=neuron_types(
            {"layer": 3, "neuron": 17, "type": "visual", "shares": (0.7, 0.1, 0.2, 0.0)}
        ),
        explanations=explanations({"layer": 3, "neuron": 17, "text": "red patches"}),
        scores=scores({"layer": 3, "neuron": 17, "correlation": 0.62, "control_other": -0.04}),
        aggregates=aggregates(),
        outcomes={},
        chosen=[(3, 17, "visual")],
        traces=traces(
            trace(grid, [0.0, 1.0, 0.5], layer=3, neuron=17, rank=0, sample_id=0),
            trace(grid / 2, [0.0, -1.0, 1.5], layer=3, neuron=17, rank=1, sample_id=1),
        ),
        catalog=catalog(sample(0), sample(1)),
    )
    return replace(made, **changes)


def squeeze(words: str) -> str:
    return re.sub(r"\s+", " ", words.replace("\N{NO-BREAK SPACE}", " "))
