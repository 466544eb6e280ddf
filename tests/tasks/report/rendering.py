"""Renders the report page and reads it back."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow.compute as pc

from neuron_atlas.tasks.report.figures import draw_figures
from neuron_atlas.tasks.report.page import PageInputs
from neuron_atlas.tasks.report.record import NeuronRecord, gather_records
from neuron_atlas.tasks.report.settings import About
from neuron_atlas.tasks.report.tables import over_all_tokens
from neuron_atlas.tasks.report.verdict import count_verdicts
from tests.tasks.report.synthetic import (
    aggregates,
    catalog,
    explanations,
    neuron_types,
    sample,
    scores,
    slots,
    trace,
    traces,
)

ATTACK = "<script>alert(1)</script>\"' onload=x <img src=q>"
ABOUT = About(
    subject="llava-scenes",
    dataset="1,000 scenes",
    fingerprint="9f2c01",
    facts=(("samples", "1,000"),),
)
LEVEL = 0.05
"""False discovery rate of the verdicts."""
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
    """One visual neuron with two exemplars of the same sample size, explained and scored.

    `explanations`, `scores`, `traces` and `catalog` are what the neurons' records are gathered
    from; `chosen`: (layer, neuron, type); `exemplars`: at most so many of each.
    """
    grid = np.zeros((2, 3))
    grid[1, 2] = 2.0
    given: dict[str, Any] = {
        "title": "Drawn scenes",
        "when": "23 November 2026",
        "about": ABOUT,
        "types": neuron_types(
            {"layer": 3, "neuron": 17, "type": "visual", "shares": (0.7, 0.1, 0.2, 0.0)}
        ),
        "explanations": explanations({"layer": 3, "neuron": 17, "text": "red patches"}),
        "scores": scores({"layer": 3, "neuron": 17, "correlation": 0.62, "control_other": -0.04}),
        "aggregates": aggregates(),
        "outcomes": {},
        "chosen": [(3, 17, "visual")],
        "traces": traces(
            trace(grid, [0.0, 1.0, 0.5], layer=3, neuron=17, rank=0, sample_id=0),
            trace(grid / 2, [0.0, -1.0, 1.5], layer=3, neuron=17, rank=1, sample_id=1),
        ),
        "catalog": catalog(sample(0), sample(1)),
        "exemplars": 6,
        "analysis": None,
    } | changes
    samples, chosen, top = (given.pop(name) for name in ("catalog", "chosen", "exemplars"))
    tables = {name: given.pop(name) for name in ("explanations", "scores", "traces")}
    tables["traces"] = tables["traces"].filter(pc.field("rank") < top)
    figures = draw_figures(given["types"], over_all_tokens(tables["scores"]), given["analysis"])
    neurons = [
        _of_layer({"types": given["types"]} | tables, layer, samples)[neuron]
        for layer, neuron, _ in chosen
    ]
    verdicts = count_verdicts(over_all_tokens(tables["scores"]), LEVEL)
    return PageInputs(**given, figures=figures, neurons=neurons, verdicts=verdicts)


def _of_layer(tables, layer: int, samples) -> dict[int, NeuronRecord]:
    mine = {name: table.filter(pc.field("layer") == layer) for name, table in tables.items()}
    mine["evidence"] = mine.pop("traces")
    return gather_records(mine, slots(mine["evidence"]), samples, LEVEL)


def squeeze(words: str) -> str:
    return re.sub(r"\s+", " ", words.replace("\N{NO-BREAK SPACE}", " "))
