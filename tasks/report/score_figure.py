"""Draw the distribution of scores and of their strongest control, on the same bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from neuron_atlas.tasks.report.canvas import HEIGHT, blank_sheet, panels, write_message
from neuron_atlas.tasks.report.controls import CONTROLS, Control, strongest_control
from neuron_atlas.tasks.report.palette import LIGHT

_BINS = np.linspace(-1, 1, 41)
_SCORE_OPACITY = 0.5
_PANEL = 2.6
"""Height of a panel in inches, if there are several."""


def draw_scores(scores: pa.Table, title: str) -> Figure:
    """Draw correlations of ok scores and of their strongest control, a panel per explainer and
    simulator."""
    frame = pl.DataFrame(
        scores.select(["explainer", "simulator", "correlation", *CONTROLS, "status"])
    ).with_columns(pl.col("correlation", *CONTROLS).fill_nan(None))
    ok = frame.filter(pl.col("status") == "ok", pl.col("correlation").is_not_null())
    if ok.is_empty():
        figure = blank_sheet(title)
        write_message(figure, _why_empty(frame))
        return figure
    pairs = ok.select("explainer", "simulator").unique().sort("explainer", "simulator").rows()
    height = HEIGHT if len(pairs) == 1 else 0.78 + _PANEL * len(pairs)
    figure = blank_sheet(title, height)
    # Space above the axes: three lines of text, and the tick labels of the panel above.
    gap = 0.88 if len(pairs) == 1 else 1.08
    sheets = panels(figure, len(pairs), left=0.55, right=0.15, head=0.3, foot=0.48, gap=gap)
    for axes, (explainer, simulator) in zip(sheets, pairs, strict=True):
        chosen = ok.filter(explainer=explainer, simulator=simulator)
        control = strongest_control(chosen.select(pl.col(*CONTROLS).mean()).row(0, named=True))
        medians = _draw_pair(axes, chosen, control)
        number = f"{chosen.height:,} {'neuron' if chosen.height == 1 else 'neurons'}"
        words = f"{explainer}, simulated by {simulator}: {number}"
        named = {"score": "score", "control": f"control: {control.words}" if control else ""}
        _write_legend(figure, axes.get_position().y1 * height, words, medians, named)
        axes.set_ylabel("neurons")
    axes.set_xlabel("correlation")
    return figure


def _draw_pair(axes: Axes, chosen: pl.DataFrame, control: Control | None) -> dict[str, float]:
    """Draw both distributions. Return their medians."""
    values = {"score": chosen["correlation"].to_numpy()}
    if control is not None:
        values["control"] = chosen[control.name].drop_nulls().to_numpy()
    values = {name: found for name, found in values.items() if len(found)}
    counts = {name: np.histogram(found, _BINS)[0] for name, found in values.items()}
    medians = {name: float(np.median(found)) for name, found in values.items()}
    axes.axvline(0, color=LIGHT["hairline"], linewidth=0.7, zorder=0)
    for name, count in counts.items():
        filled: dict[str, Any] = (
            {"fill": True, "alpha": _SCORE_OPACITY} if name == "score" else {"linewidth": 1.3}
        )
        axes.stairs(count, _BINS, color=LIGHT[name], **filled)
        axes.axvline(medians[name], color=LIGHT[name], linewidth=1, linestyle=(0, (4, 2)))
    axes.set(xlim=(-1, 1), ylim=(0, 1.08 * max(count.max() for count in counts.values())))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    minus = "\N{MINUS SIGN}"
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], [f"{minus}1", f"{minus}0.5", "0", "0.5", "1"])
    return medians


def _write_legend(
    figure: Figure, above: float, title: str, medians: dict[str, float], named: dict[str, str]
) -> None:
    """Write three lines above the axes. above: inches from the sheet's bottom to the axes' top."""
    width, height = figure.get_size_inches()
    style: dict[str, Any] = {"va": "center_baseline", "fontsize": 8.8}
    figure.text(
        0.1 / width,
        (above + 0.6) / height,
        title,
        color=LIGHT["muted"],
        parse_math=False,
        **style,
    )
    for line, (name, median) in enumerate(medians.items()):
        bottom = above + 0.335 - 0.2 * line
        look: dict[str, Any] = (
            {"facecolor": LIGHT[name], "alpha": _SCORE_OPACITY}
            if name == "score"
            else {"facecolor": "none", "edgecolor": LIGHT[name], "linewidth": 1.2}
        )
        swatch = Rectangle(
            (0.1 / width, bottom / height),
            0.09 / width,
            0.09 / height,
            transform=figure.transFigure,
            **look,
        )
        figure.add_artist(swatch)
        number = f"{median:.2f}".replace("-", "\N{MINUS SIGN}")
        words = f"{named[name]}, median {number}"
        figure.text(0.25 / width, (bottom + 0.045) / height, words, color=LIGHT["ink"], **style)


def _why_empty(frame: pl.DataFrame) -> str:
    if frame.is_empty():
        return "No explanation was scored."
    counted = frame["status"].value_counts().sort("count", "status", descending=[True, False])
    lines = [f"{count:,} {status.replace('_', ' ')}" for status, count in counted.rows()]
    return "\n".join(["No score could be computed.", *lines])
