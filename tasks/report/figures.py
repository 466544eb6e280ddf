"""Draw the figures of a run: types of neurons, scores of explanations, and the analysis."""

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
from neuron_atlas.tasks.report.effect_figures import draw_check, draw_effects
from neuron_atlas.tasks.report.effects import EffectsSummary
from neuron_atlas.tasks.report.score_figure import draw_scores
from neuron_atlas.tasks.report.type_figures import draw_types_by_layer, draw_visual_against_text


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its name, title and caption. look_for: one sentence for a first-time reader."""

    name: str
    title: str
    caption: str
    look_for: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The figure as one `<svg>` element."""
        return svg_text(self.figure)


def draw_figures(
    types: pa.Table,
    scores: pa.Table,
    analysis: Analysis | None = None,
    effects: EffectsSummary | None = None,
) -> list[ReportFigure]:
    """Draw the report's figures. A figure without data shows the reason."""
    drawn: list[tuple[str, str, Callable[[Any, str], Figure], Any, str, str]] = [
        (
            "types_by_layer", "Types by layer", draw_types_by_layer, types,
            "The share of each type among the neurons of a layer.",
            "Look for a type whose share rises or falls from the first layers to the last.",
        ),
        (
            "visual_against_text", "Visual against text", draw_visual_against_text, types,
            "Every neuron, by the share of its exemplars that are visual and the share that are "
            "text. Neurons at the same position form one square: its side grows with the logarithm "
            "of their number, its colors are their types. The bars count the neurons of each "
            "column and row.",
            "Look at the corners: neurons at the lower right are purely visual, those at the upper "
            "left purely text, and those at the lower left neither.",
        ),
        (
            "scores", "Scores and their strongest control", draw_scores, scores,
            "How well explanations predict their neurons on samples that the explainer never saw, "
            "and the same for the strongest control, which the legend names: the control with the "
            "highest mean. Both are signed correlations; lines mark the medians.",
            "Look for scores to the right of the control: where the two overlap, explanations "
            "predict no better than the control.",
        ),
    ]  # fmt: skip
    if analysis is not None:
        is_tested = "tested" in analysis.rules
        by = "tests" if is_tested else "the paper\N{RIGHT SINGLE QUOTATION MARK}s rule"
        drawn += [
            (
                "share_intervals", "Shares with intervals", draw_share_intervals, analysis,
                "The share of each type by layer, with its 95 % interval (Wilson), which shows the "
                "variation between samples of as many neurons.",
                "Look for layers whose intervals do not overlap: only their shares clearly differ.",
            ),
            (
                "agreement", "Agreement of the two typings", draw_agreement, analysis,
                "Neurons by their type under the paper\N{RIGHT SINGLE QUOTATION MARK}s "
                "rule and by tests. For kappa, undecided and silent count as unknown.",
                "Look for dark cells where the two names agree; neurons in all other cells change "
                "their type with the rule.",
            ),
            (
                "activation_density", "Activation density by type", draw_densities, analysis,
                "The share of visual and text tokens at which neurons are active (above 0), on a "
                f"logarithmic scale. Types by {by}.",
                "Look for types whose hump lies far to the left: their neurons respond to few "
                "tokens, and so are selective.",
            ),
            (
                "responses", "How the types respond", draw_responses, analysis,
                "The median neuron of each type (mark), the middle 50 % (bar) and the middle 90 % "
                "(line). Concentration is computed over the visual tokens of images that excite "
                f"the neuron strongly; their order does not matter. Types by {by}.",
                "Look for a type whose thick bar lies apart from those of the others.",
            ),
        ]  # fmt: skip
        if not is_tested:
            drawn = [one for one in drawn if one[0] != "agreement"]
    if effects is not None:
        drawn += [
            (
                "effects", "Effect by layer and type", draw_effects, effects,
                "The median absolute effect of zeroing a neuron on the loss of the description, in "
                "nats per token, to first order, by layer and type.",
                "Look for layers and types whose neurons the description depends on.",
            ),
            (
                "attribution_check", "Attribution against exact ablation", draw_check, effects,
                "Single neurons: the first-order effect of zeroing, and the exact one on the same "
                "samples. On the line they are equal.",
                "Look for points away from the line: there the attribution is not to be trusted.",
            ),
        ]  # fmt: skip
    return [
        ReportFigure(name, title, caption, look_for, draw(table, title))
        for name, title, draw, table, caption, look_for in drawn
    ]


def write_figures(folder: Path, figures: Sequence[ReportFigure]) -> list[Path]:
    """Save each figure as PNG and as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in figures:
        png, svg = (folder / f"{one.name}.{suffix}" for suffix in ("png", "svg"))
        png.write_bytes(png_bytes(one.figure))
        svg.write_text(one.svg, encoding="utf-8")
        written += [png, svg]
    return written
