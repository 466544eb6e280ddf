"""Draw the figures of a sweep: types and scores by layer, one panel per setting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import (
    blank_sheet,
    layer_ticks,
    panels,
    stacked_shares,
    type_legend,
    write_message,
)
from neuron_atlas.tasks.report.figures import ReportFigure
from neuron_atlas.tasks.report.palette import LIGHT

_PANEL = 2.2
"""Height of a panel in inches."""
_MARGINS = {"left": 0.55, "right": 0.15, "head": 0.28, "foot": 0.48, "gap": 0.62}
"""Inches around the panels."""


def draw_comparison(compared: pl.DataFrame) -> list[ReportFigure]:
    """Draw the figures of a table from `compare`."""
    by_layer = compared.filter(pl.col("layer").is_not_null())
    return [
        ReportFigure(
            "types",
            "Types by layer",
            "The share of each type among the neurons of a layer, for all jobs of the sweep.",
            _draw("Types by layer", by_layer, ["setting"], _types, has_types=True),
        ),
        ReportFigure(
            "scores",
            "Scores by layer, with their control",
            "Filled: how well explanations predict their neurons on samples that the explainer "
            "never saw (mean correlation over the neurons of a layer). Open: the same for the "
            "explanations of other neurons. Lines are 95 % intervals over neurons.",
            _draw(
                "Scores by layer",
                by_layer.filter(pl.col("correlation").is_not_null()),
                ["setting", "explainer", "simulator"],
                _scores,
            ),
        ),
    ]


def _draw(
    title: str,
    rows: pl.DataFrame,
    by: list[str],
    draw: Callable[[Axes, pl.DataFrame], None],
    has_types: bool = False,
) -> Figure:
    kinds = rows.partition_by(by, maintain_order=True, as_dict=True)
    if not kinds:
        figure = blank_sheet(title)
        write_message(figure, "No job has a score.")
        return figure
    height = 0.76 + _PANEL * len(kinds)
    figure = blank_sheet(title, height)
    if has_types:
        type_legend(figure)
    else:
        _score_legend(figure, height)
    for axes, (key, mine) in zip(
        panels(figure, len(kinds), **_MARGINS), kinds.items(), strict=True
    ):
        # Two jobs can capture the same layer; show the first.
        mine = mine.unique("layer", keep="first").sort("layer")
        draw(axes, mine)
        layer_ticks(axes, mine["layer"].to_list())
        axes.set_xlim(-0.7, max(len(mine), 3) - 0.3)
        words = _panel_title([str(part) for part in key])
        axes.set_title(words, loc="left", fontsize=8.8, color=LIGHT["muted"], parse_math=False)
    axes.set_xlabel("layer")
    return figure


def _types(axes: Axes, rows: pl.DataFrame) -> None:
    stacked_shares(
        axes, rows.select(pl.col(f"{name}_share").fill_null(0).alias(name) for name in TYPES)
    )


def _scores(axes: Axes, rows: pl.DataFrame) -> None:
    positions = np.arange(len(rows))
    axes.axhline(0, color=LIGHT["hairline"], linewidth=0.7, zorder=0)
    for name, color, is_filled, shift in (
        ("correlation", LIGHT["score"], True, -0.08),
        ("correlation_of_control", LIGHT["control"], False, 0.08),
    ):
        middle, low, high = (
            rows[f"{name}{end}"].cast(pl.Float64).fill_null(np.nan).to_numpy()
            for end in ("", "_low", "_high")
        )
        axes.vlines(positions + shift, low, high, color=color, linewidth=1.1)
        axes.plot(
            positions + shift,
            middle,
            color=color,
            linewidth=0.9 if is_filled else 0.6,
            marker="o",
            markersize=4,
            markerfacecolor=color if is_filled else LIGHT["paper"],
        )
    axes.set_ylabel("correlation")
    axes.locator_params(axis="y", nbins=4)


def _score_legend(figure: Figure, height: float) -> None:
    left = 0.02
    for words, mark, color in (
        ("score", "\N{BLACK CIRCLE}", LIGHT["score"]),
        ("control: another neuron's explanation", "\N{WHITE CIRCLE}", LIGHT["control"]),
    ):
        y = 1 - 0.5 / height
        figure.text(left, y, mark, va="center_baseline", fontsize=9, color=color)
        figure.text(left + 0.03, y, words, va="center_baseline", fontsize=8.8, color=LIGHT["ink"])
        left += 0.16


def _panel_title(key: list[str]) -> str:
    setting, *models = key
    parts = [setting] if setting else []
    if models:
        parts.append(f"{models[0]}, simulated by {models[1]}")
    return "; ".join(parts)
