"""Draw the figures of a sweep: types and scores by layer, one panel per setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from neuron_atlas.tasks.report.comparison import MEASURES
from neuron_atlas.tasks.report.controls import CONTROLS
from neuron_atlas.tasks.report.figures import ReportFigure
from neuron_atlas.tasks.report.palette import LIGHT

_PANEL = 2.2
"""Height of a panel in inches."""
_MARGINS = {"left": 0.55, "right": 0.15, "head": 0.28, "foot": 0.48, "gap": 0.62}
"""Inches around the panels."""
_LEGEND_LINE = 0.19
"""Height of a line of the legend in inches."""
_SCORE_MARK = "o"
_MARKS = {"control_other": "o", "control_empty": "^", "control_blind": "s"}
_SYMBOLS = {
    "control_other": "\N{WHITE CIRCLE}",
    "control_empty": "\N{WHITE UP-POINTING TRIANGLE}",
    "control_blind": "\N{WHITE SQUARE}",
}


def draw_comparison(compared: pl.DataFrame) -> list[ReportFigure]:
    """Draw the figures of a table from `compare`."""
    by_layer = compared.filter(pl.col("layer").is_not_null())
    return [
        ReportFigure(
            "types",
            "Types by layer",
            "The share of each type among the neurons of a layer, for all jobs of the sweep.",
            "Look for a setting whose bars differ from those of the others in the same layer.",
            _draw("Types by layer", by_layer, ["setting"], _types, has_types=True),
        ),
        ReportFigure(
            "scores",
            "Scores by layer, with their controls",
            "Filled: how well explanations predict their neurons on samples that the explainer "
            "never saw (mean correlation over the neurons of a layer). Open: the controls, on the "
            "same axis. Lines are 95 % intervals over neurons.",
            "Look for filled marks whose lines stay above those of all open marks.",
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
    controls = [] if has_types else _controls_of(rows)
    # Each control has a line in the legend; the first line is that of the score.
    extra = _LEGEND_LINE * len(controls)
    height = 0.76 + extra + _PANEL * len(kinds)
    figure = blank_sheet(title, height)
    if has_types:
        type_legend(figure)
    else:
        _score_legend(figure, height, controls)
    margins = _MARGINS | {"head": _MARGINS["head"] + extra}
    for axes, (key, mine) in zip(panels(figure, len(kinds), **margins), kinds.items(), strict=True):
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
    drawn = [("correlation", LIGHT["score"], _SCORE_MARK, -0.08)]
    for number, control in enumerate(_controls_of(rows)):
        shift = 0.08 * (number + 1)
        drawn.append((MEASURES[control], LIGHT["control"], _MARKS[control], shift))
    for name, color, mark, shift in drawn:
        is_filled = name == "correlation"
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
            marker=mark,
            markersize=4,
            markerfacecolor=color if is_filled else LIGHT["paper"],
        )
    axes.set_ylabel("correlation")
    axes.locator_params(axis="y", nbins=4)


def _controls_of(rows: pl.DataFrame) -> list[str]:
    """Return the controls that have a value in any row."""
    return [name for name in CONTROLS if rows[MEASURES[name]].drop_nulls().len()]


def _score_legend(figure: Figure, height: float, controls: Sequence[str]) -> None:
    lines = [("score", "\N{BLACK CIRCLE}", LIGHT["score"])]
    for name in controls:
        lines.append((f"control: {CONTROLS[name]}", _SYMBOLS[name], LIGHT["control"]))
    for number, (words, symbol, color) in enumerate(lines):
        y = 1 - (0.5 + _LEGEND_LINE * number) / height
        figure.text(0.02, y, symbol, va="center_baseline", fontsize=9, color=color)
        figure.text(0.05, y, words, va="center_baseline", fontsize=8.8, color=LIGHT["ink"])


def _panel_title(key: list[str]) -> str:
    setting, *models = key
    parts = [setting] if setting else []
    if models:
        parts.append(f"{models[0]}, simulated by {models[1]}")
    return "; ".join(parts)
