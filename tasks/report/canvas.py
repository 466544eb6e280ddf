"""The sheet that every figure is drawn on: its size, type, axes, and how it becomes a file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from neuron_atlas.tasks.report.palette import LIGHT, themed_svg, type_colours

WIDTH, HEIGHT = 4.9, 4.62
"""Inches. Small enough that the letters stay legible where a page shows figures side by side."""

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
    with _settings():
        figure.savefig(written, format="svg", metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"'?DejaVu Sans'?[^;\"]*", _FONTS, svg)
    return themed_svg(svg)


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG on light paper, for readers that show no SVG."""
    written = io.BytesIO()
    with _settings():
        figure.savefig(written, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return written.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    with matplotlib.rc_context(_SETTINGS):
        yield
