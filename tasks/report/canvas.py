"""Draw and save the parts that all figures share: sheet, axes, legend, SVG and PNG."""

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

from neuron_atlas.tasks.report.palette import LIGHT, themed_svg, type_colors

WIDTH, HEIGHT = 4.9, 4.62
"""In inches. Small enough that text stays legible if a page shows figures side by side."""

SMALL: Mapping[str, Any] = {"fontsize": 8.3, "color": LIGHT["muted"]}
_MOST_TICKS = 16
_PNG_DPI = 200
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "neuron-atlas", "font.size": 8.5}
_FONTS = "system-ui, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


def blank_sheet(title: str, height: float = HEIGHT) -> Figure:
    """Return an empty figure with a title. height: in inches."""
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
    """Yield `count` axes of a figure, top to bottom. Margins in inches; `gap` is above each."""
    width, height = figure.get_size_inches()
    panel_height = (height - head - foot) / count
    for index in reversed(range(count)):
        yield plain_axes(
            figure, left, foot + panel_height * index, width - left - right, panel_height - gap
        )


def plain_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes without a box. Position and size are in inches, from the lower left corner."""
    sheet_width, sheet_height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / sheet_width, bottom / sheet_height, width / sheet_width, height / sheet_height)
    )
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=LIGHT["muted"], linewidth=0.6)
    axes.tick_params(colors=LIGHT["muted"], width=0.6, length=2.5, labelsize=8.8)
    axes.xaxis.label.set(color=LIGHT["ink"], fontsize=9.3)
    # SVG viewers position rotated text correctly only if it rotates about its anchor.
    axes.yaxis.label.set(color=LIGHT["ink"], fontsize=9.3, rotation_mode="anchor")
    return axes


def write_note(axes: Axes, words: str) -> None:
    """Write a note above the axes."""
    axes.text(0, 1.03, words, transform=axes.transAxes, va="bottom", **SMALL)


def percents(axis: Axis) -> None:
    """Format the ticks of an axis in percent."""
    axis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))


def layer_ticks(axes: Axes, layers: Sequence[int]) -> None:
    """Label the x axis with layers, or with every n-th layer if there are many.

    A layer's position is its index in the list, so a selection of layers (0, 8, 31) has no gaps.
    """
    step = max(1, -(-len(layers) // _MOST_TICKS))
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])


def stacked_shares(axes: Axes, shares: pl.DataFrame) -> None:
    """Draw stacked bars of the types' shares. shares: a row per layer and a column per type."""
    bottom = np.zeros(len(shares))
    for name, color in type_colors().items():
        share = shares[name].to_numpy()
        axes.bar(
            np.arange(len(shares)),
            share,
            bottom=bottom,
            width=0.82 if len(shares) > 1 else 0.5,
            color=color,
            edgecolor=LIGHT["paper"],
            linewidth=0.6 if len(shares) <= 40 else 0.2,
            label=name,
        )
        bottom = bottom + share
    axes.set_xlim(-0.7, max(len(shares), 3) - 0.3)
    axes.set_ylim(0, 1)
    percents(axes.yaxis)
    axes.spines["left"].set_visible(False)


def write_message(figure: Figure, message: str) -> None:
    """Write in the middle of an empty figure why it is empty."""
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
    colors: Mapping[str, str] | None = None,
) -> None:
    """Draw a legend of the types with their colors, in one row. Lengths are in inches."""
    width, height = figure.get_size_inches()
    y = 1 - below_top / height
    for name, color in (colors or type_colors()).items():
        square = Rectangle(
            (left / width, y - 0.045 / height),
            0.09 / width,
            0.09 / height,
            transform=figure.transFigure,
            facecolor=color,
        )
        figure.add_artist(square)
        figure.text(
            (left + 0.14) / width, y, name, va="center_baseline", fontsize=8.8, color=LIGHT["ink"]
        )
        left += 0.38 + 0.078 * len(name)


def svg_text(figure: Figure) -> str:
    """Return the figure as one `<svg>` element for light and dark. Equal data give equal text."""
    written = io.StringIO()
    # Leave out the date and the version of the library.
    nothing: Mapping[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(written, format="svg", metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"'?DejaVu Sans'?[^;\"]*", _FONTS, svg)
    return themed_svg(svg)


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as a PNG in the light theme, for viewers that show no SVG."""
    written = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(written, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return written.getvalue()
