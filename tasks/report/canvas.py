"""The sheet that every figure is drawn on: its size, type, axes, and how it becomes a file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from neuron_atlas.tasks.report.palette import LIGHT, themed_svg, type_colours

WIDTH, HEIGHT = 4.9, 4.62
"""Inches. Small enough that the letters stay legible where a page shows figures side by side."""

SMALL: Mapping[str, Any] = {"fontsize": 8.3, "color": LIGHT["muted"]}
_MOST_TICKS = 16
_PNG_DPI = 200
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "neuron-atlas", "font.size": 8.5}
_FONTS = "system-ui, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


def blank_sheet(title: str, height: float = HEIGHT) -> Figure:
    """An empty figure with its title, on the report's paper."""
    figure = Figure(figsize=(WIDTH, height), facecolor=LIGHT["paper"])
    figure.text(
        0.02,
        1 - 0.12 / height,
        title,
        ha="left",
        va="top",
        fontsize=11.5,
        fontweight="bold",
        color=LIGHT["ink"],
        parse_math=False,
    )
    return figure


def panels(
    figure: Figure, count: int, *, left: float, right: float, head: float, foot: float, gap: float
) -> Iterator[Axes]:
    """Axes below each other on one sheet, from above. Margins are in inches; `gap` is over each."""
    width, height = figure.get_size_inches()
    room = (height - head - foot) / count
    for place in reversed(range(count)):
        yield plain_axes(figure, left, foot + room * place, width - left - right, room - gap)


def plain_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes in inches from the lower left corner, with hairlines and no box."""
    sheet_width, sheet_height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / sheet_width, bottom / sheet_height, width / sheet_width, height / sheet_height)
    )
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=LIGHT["muted"], linewidth=0.6)
    axes.tick_params(colors=LIGHT["muted"], width=0.6, length=2.5, labelsize=8.8)
    axes.xaxis.label.set(color=LIGHT["ink"], fontsize=9.3)
    # An SVG viewer places turned text well only if it turns about its anchor.
    axes.yaxis.label.set(color=LIGHT["ink"], fontsize=9.3, rotation_mode="anchor")
    return axes


def note(axes: Axes, words: str) -> None:
    """Write over axes what they show."""
    axes.text(0, 1.03, words, transform=axes.transAxes, va="bottom", **SMALL)


def percents(axis: Axis) -> None:
    """Write an axis of shares in percent."""
    axis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))


def layer_ticks(axes: Axes, layers: Sequence[int]) -> None:
    """Name the layers at their places in the list, or every so many of them.

    A layer stands at its place, so that a choice of layers (0, 8, 31) has no gaps.
    """
    step = max(1, -(-len(layers) // _MOST_TICKS))
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])


def stacked_shares(axes: Axes, shares: pl.DataFrame) -> None:
    """Bars of the types' shares, a row a layer and a column a type, one type on the other."""
    bottom = np.zeros(len(shares))
    for name, colour in type_colours().items():
        share = shares[name].to_numpy()
        axes.bar(
            np.arange(len(shares)),
            share,
            bottom=bottom,
            width=0.82 if len(shares) > 1 else 0.5,
            color=colour,
            edgecolor=LIGHT["paper"],
            linewidth=0.6 if len(shares) <= 40 else 0.2,
            label=name,
        )
        bottom = bottom + share
    axes.set_xlim(-0.7, max(len(shares), 3) - 0.3)
    axes.set_ylim(0, 1)
    percents(axes.yaxis)
    axes.spines["left"].set_visible(False)


def say(figure: Figure, message: str) -> None:
    """Write in the middle of an otherwise empty figure why there is nothing to see."""
    figure.text(
        0.5,
        0.5,
        message,
        ha="center",
        va="center",
        fontsize=10,
        color=LIGHT["muted"],
        linespacing=1.7,
        parse_math=False,
    )


def type_legend(
    figure: Figure,
    left: float = 0.1,
    below_top: float = 0.5,
    colours: Mapping[str, str] | None = None,
) -> None:
    """A row of the types with their colours; lengths in inches."""
    width, height = figure.get_size_inches()
    y = 1 - below_top / height
    for name, colour in (colours or type_colours()).items():
        square = Rectangle(
            (left / width, y - 0.045 / height),
            0.09 / width,
            0.09 / height,
            transform=figure.transFigure,
            facecolor=colour,
        )
        figure.add_artist(square)
        figure.text(
            (left + 0.14) / width, y, name, va="center_baseline", fontsize=8.8, color=LIGHT["ink"]
        )
        left += 0.38 + 0.078 * len(name)


def svg_text(figure: Figure) -> str:
    """The figure as one `<svg>` element, the same for the same data, in light and in dark."""
    written = io.StringIO()
    # Without these the file would carry the hour and the library's version.
    nothing: Mapping[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(written, format="svg", metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"'?DejaVu Sans'?[^;\"]*", _FONTS, svg)
    return themed_svg(svg)


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG on light paper, for readers that show no SVG."""
    written = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(written, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return written.getvalue()
