"""Draw figures of the neurons' types: shares by layer, and visual against text shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import (
    HEIGHT,
    SMALL,
    WIDTH,
    blank_sheet,
    layer_ticks,
    plain_axes,
    stacked_shares,
    type_legend,
    write_message,
)
from neuron_atlas.tasks.report.palette import LIGHT, type_colors
from neuron_atlas.tasks.report.tables import types_by_layer

_ROOM_FOR_WORDS = 8
"""Maximum number of layers for which bars are wide enough for a number."""
_WORTH_A_WORD = 0.06
_FINEST_LATTICE = 50
_SMALLEST_SIDE = 0.32
_WIDEST_SQUARE = 1 / 16


def draw_types_by_layer(types: pa.Table, title: str) -> Figure:
    """Draw the stacked shares of the types in each layer, with the number of neurons."""
    figure = blank_sheet(title)
    if not types.num_rows:
        write_message(figure, "No neuron was classified.")
        return figure
    type_legend(figure)
    axes = plain_axes(figure, 0.55, 0.48, WIDTH - 0.7, HEIGHT - 1.42)
    counts = types_by_layer(types).drop_nulls("layer")
    layers, numbers = counts["layer"].to_list(), counts["neurons"].to_numpy()
    shares = counts.select(pl.col(f"{name} share").alias(name) for name in TYPES)
    stacked_shares(axes, shares)
    if len(layers) <= _ROOM_FOR_WORDS:
        _write_shares(axes, shares)
    _note_counts(axes, numbers)
    layer_ticks(axes, layers)
    axes.set_xlabel("layer")
    return figure


def draw_visual_against_text(types: pa.Table, title: str) -> Figure:
    """Draw all neurons by share_visual and share_text; a square holds those at one position."""
    figure = blank_sheet(title)
    types = types.filter(pc.field("n_exemplars") > 0)
    if not types.num_rows:
        write_message(figure, "No neuron with an exemplar was classified.")
        return figure
    type_legend(figure)
    steps = _lattice_steps(types)
    cells = _count_cells(types, steps)
    width = min(1 / steps, _WIDEST_SQUARE)
    side = 3.0
    axes = plain_axes(figure, 0.55, 0.48, side, side)
    above = plain_axes(figure, 0.55, 0.48 + side + 0.05, side, 0.42)
    right = plain_axes(figure, 0.55 + side + 0.05, 0.48, 0.75, side)
    _draw_squares(axes, cells, steps, width)
    _draw_margin(above, cells, "visual", steps, width)
    _draw_margin(right, cells, "text", steps, width)
    edge = width / 2
    axes.plot([0, 1], [1, 0], color=LIGHT["hairline"], linewidth=0.7, zorder=0)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set(xlim=(-edge, 1 + edge), ylim=(-edge, 1 + edge), xticks=ticks, yticks=ticks)
    axes.set_xlabel("share of exemplars that are visual")
    axes.set_ylabel("share of exemplars that are text")
    for bare, limits in ((above, axes.get_xlim()), (right, axes.get_ylim())):
        bare.spines[["left", "bottom"]].set_visible(False)
        bare.set_xticks([])
        bare.set_yticks([])
        (bare.set_xlim if bare is above else bare.set_ylim)(limits)
    _size_key(axes, cells, width)
    return figure


def _write_shares(axes: Axes, shares: pl.DataFrame) -> None:
    """Write the shares on the bars, where there is space."""
    for position, row in enumerate(shares.to_dicts()):
        low = 0.0
        for name, share in row.items():
            if share >= _WORTH_A_WORD:
                style: dict[str, Any] = {"fontsize": 8.3, "color": LIGHT[f"on-{name}"]}
                words = f"{share:.0%}".replace("%", " %")
                axes.text(position, low + share / 2, words, ha="center", va="center", **style)
            low += share


def _note_counts(axes: Axes, numbers: np.ndarray) -> None:
    style: dict[str, Any] = {**SMALL, "va": "bottom", "clip_on": False}
    if len(numbers) <= _ROOM_FOR_WORDS:
        for position, number in enumerate(numbers):
            axes.text(position, 1.015, f"n = {number:,}", ha="center", **style)
        return
    if numbers.min() == numbers.max():
        each = f"{numbers[0]:,} neurons in each layer"
    else:
        each = f"{numbers.min():,} to {numbers.max():,} neurons per layer"
    axes.text(0, 1.015, f"{each}, {numbers.sum():,} in all", transform=axes.transAxes, **style)


def _lattice_steps(types: pa.Table) -> int:
    """Return the number of steps of the lattice: at most one per exemplar, and a visible number."""
    most = int(types["n_exemplars"].to_numpy().max())
    return min(max(most, 1), _FINEST_LATTICE)


def _count_cells(types: pa.Table, steps: int) -> pl.DataFrame:
    """Count the neurons of each type at each point (visual, text) of the lattice."""
    position = {
        axis: (pl.col(f"share_{axis}").fill_nan(0) * steps).round().cast(pl.Int64)
        for axis in ("visual", "text")
    }
    return (
        pl.DataFrame(types.select(["share_visual", "share_text", "type"]))
        .with_columns(**position)
        .group_by("visual", "text", "type")
        .len("n")
        .sort("visual", "text", pl.col("type").replace_strict(TYPES, range(len(TYPES))))
    )


def _draw_squares(axes: Axes, cells: pl.DataFrame, steps: int, width: float) -> None:
    whole = cells.with_columns(pl.col("n").sum().over("visual", "text").alias("all"))
    before = pl.col("n").cum_sum().over("visual", "text") - pl.col("n")
    whole = whole.with_columns(before.alias("before"))
    side = _sides(whole["all"].to_numpy(), width)
    left = whole["visual"].to_numpy() / steps - side / 2
    bottom = whole["text"].to_numpy() / steps - side / 2
    start = left + side * (whole["before"] / whole["all"]).to_numpy()
    stop = start + side * (whole["n"] / whole["all"]).to_numpy()
    top = bottom + side
    around = ((start, bottom), (stop, bottom), (stop, top), (start, top), (start, bottom))
    corners = np.stack([np.stack(corner, axis=1) for corner in around], axis=1)
    kinds = whole["type"].to_numpy()
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    # One path per type keeps an SVG of a thousand squares small.
    for name, color in type_colors().items():
        mine = corners[kinds == name]
        if len(mine):
            outline = Outline(mine.reshape(-1, 2), codes * len(mine))
            axes.add_patch(PathPatch(outline, facecolor=color, linewidth=0, label=name))


def _sides(numbers: np.ndarray, width: float, most: int | None = None) -> np.ndarray:
    most = int(numbers.max()) if most is None else most
    share = np.log(numbers) / np.log(most) if most > 1 else np.ones(len(numbers))
    return width * 0.96 * (_SMALLEST_SIDE + (1 - _SMALLEST_SIDE) * share)


def _draw_margin(axes: Axes, cells: pl.DataFrame, along: str, steps: int, width: float) -> None:
    """Draw stacked numbers of neurons along one of the two shares."""
    start = np.zeros(steps + 1)
    for name, color in type_colors().items():
        summed = cells.filter(pl.col("type") == name).group_by(along).agg(pl.col("n").sum())
        numbers = np.zeros(steps + 1)
        numbers[summed[along].to_numpy()] = summed["n"].to_numpy()
        positions = np.arange(steps + 1) / steps
        if along == "visual":
            axes.bar(positions, numbers, bottom=start, width=0.85 * width, color=color)
        else:
            axes.barh(positions, numbers, left=start, height=0.85 * width, color=color)
        start += numbers


def _size_key(axes: Axes, cells: pl.DataFrame, width: float) -> None:
    """Draw the legend of the squares' sizes, in the corner that no neuron can reach."""
    most = int(cells.group_by("visual", "text").agg(pl.col("n").sum())["n"].max())  # type: ignore[arg-type]
    # Powers of ten, except one that is too close to the largest number.
    powers = [10**power for power in range(len(str(most)))]
    numbers = sorted({1, most, *(power for power in powers if power <= most / 2)})
    sides = _sides(np.array(numbers), width, most)
    for row, (number, side) in enumerate(zip(numbers, sides, strict=True)):
        x, y = 0.74, 0.97 - row * max(0.07, width * 1.08)
        corner = (x - side / 2, y - side / 2)
        axes.add_patch(Rectangle(corner, side, side, facecolor=LIGHT["muted"], linewidth=0))
        words = f"{number:,} neuron" if number == 1 else f"{number:,}"
        axes.text(x + width / 2 + 0.03, y, words, va="center_baseline", **SMALL)
