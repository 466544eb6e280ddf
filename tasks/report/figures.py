"""The figures of a run: what types its neurons are, and how far their explanations hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from neuron_atlas.tasks.report.analysis import Analysis
from neuron_atlas.tasks.report.analysis_figures import (
    draw_agreement,
    draw_densities,
    draw_responses,
    draw_share_intervals,
)
from neuron_atlas.tasks.report.canvas import png_bytes, svg_text
from neuron_atlas.tasks.report.score_figure import draw_scores
from neuron_atlas.tasks.report.type_figures import draw_types_by_layer, draw_visual_against_text


@dataclass(frozen=True)
class Plate:
    """A figure with the words that go with it."""

    name: str
    title: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The figure as one `<svg>` element."""
        return svg_text(self.figure)


def draw_plates(types: pa.Table, scores: pa.Table, analysis: Analysis | None = None) -> list[Plate]:
    """The report's figures. A figure without data says why it is empty."""
    drawn: list[tuple[str, str, Callable[[Any, str], Figure], Any, str]] = [
        (
            "types_by_layer", "Types by layer", draw_types_by_layer, types,
            "The share of each type among the neurons of a layer.",
        ),
        (
            "visual_against_text", "Visual against text", draw_visual_against_text, types,
            "Every neuron, by the share of its exemplars that are visual and the share that are "
            "text. Neurons at the same place are gathered in one square: its side grows with the "
            "logarithm of their number, its colours are their types. Above and beside, how many "
            "neurons lie in each column and row.",
        ),
        (
            "scores", "Scores beside their control", draw_scores, scores,
            "How well an explanation predicts its neuron on samples that the explainer never "
            "saw, beside the same for another neuron's explanation. Both are signed "
            "correlations; lines mark the medians.",
        ),
    ]  # fmt: skip
    if analysis is not None:
        is_tested = "tested" in analysis.rules
        by = "tests" if is_tested else "the paper\N{RIGHT SINGLE QUOTATION MARK}s rule"
        drawn += [
            (
                "share_intervals", "Shares with intervals", draw_share_intervals, analysis,
                "The share of each type by layer, with its 95 % interval (Wilson): how far another "
                "draw of as many such neurons could differ.",
            ),
            (
                "agreement", "Agreement of the two typings", draw_agreement, analysis,
                "Neurons by their type by the paper\N{RIGHT SINGLE QUOTATION MARK}s rule and by "
                "tests. For kappa, undecided and silent count as unknown.",
            ),
            (
                "activation_density", "Activation density by type", draw_densities, analysis,
                "At which share of all tokens a neuron is active (above 0), for visual and for "
                f"text tokens, on a logarithmic scale. Types by {by}.",
            ),
            (
                "responses", "How the types respond", draw_responses, analysis,
                "Of each type the median neuron (mark), the middle half (bar) and nine tenths "
                "(line). Concentration is over the visual tokens of an image that excites the "
                f"neuron strongly, whatever their order. Types by {by}.",
            ),
        ]  # fmt: skip
        if not is_tested:
            drawn = [plate for plate in drawn if plate[0] != "agreement"]
    return [
        Plate(name, title, caption, draw(table, title))
        for name, title, draw, table, caption in drawn
    ]


def write_figures(folder: Path, plates: Sequence[Plate]) -> list[Path]:
    """Save each figure as PNG and as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plate in plates:
        png, svg = (folder / f"{plate.name}.{suffix}" for suffix in ("png", "svg"))
        png.write_bytes(png_bytes(plate.figure))
        svg.write_text(plate.svg, encoding="utf-8")
        written += [png, svg]
    return written
