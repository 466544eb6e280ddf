"""Figures of the neurons' types: their shares by layer, and p_visual against p_text."""

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
from matplotlib.ticker import PercentFormatter

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import (
    HEIGHT,
    WIDTH,
    blank_sheet,
    plain_axes,
    say,
    type_legend,
)
from neuron_atlas.tasks.report.palette import LIGHT, type_colours

_ROOM_FOR_WORDS = 8
"""Layers up to which bars are wide enough for a number on them."""
_WORTH_A_WORD = 0.06
_FINEST_LATTICE = 50
_SMALLEST_SIDE = 0.32
_WIDEST_SQUARE = 1 / 16


def draw_types_by_layer(types: pa.Table, title: str) -> Figure:
    """Stacked shares of the types in each layer, with the number of neurons noted."""
    figure = blank_sheet(title)
    if not types.num_rows:
        say(figure, "No neuron was classified.")
        return figure
    type_legend(figure)
    axes = plain_axes(figure, 0.55, 0.48, WIDTH - 0.7, HEIGHT - 1.42)
    counts = _count_types(types)
    layers = counts["layer"].to_numpy()
    numbers = counts.select(TYPES).to_numpy()
    shares = numbers / numbers.sum(axis=1, keepdims=True)
    # Bars stand at their place in the list, so that a choice of layers (0, 8, 31) has no gaps.
    places = np.arange(len(layers))
    bottom = np.zeros(len(layers))
    for column, (name, colour) in enumerate(type_colours().items()):
        share = shares[:, column]
        axes.bar(
            places,
            share,
            bottom=bottom,
            width=0.82 if len(layers) > 1 else 0.5,
            color=colour,
            edgecolor=LIGHT["paper"],
            linewidth=0.6 if len(layers) <= 40 else 0.2,
            label=name,
        )
        if len(layers) <= _ROOM_FOR_WORDS:
            _write_shares(axes, places, bottom, share, LIGHT[f"on-{name}"])
        bottom = bottom + share
    _note_counts(axes, places, numbers.sum(axis=1))
    axes.set_xlim(-0.7, max(len(layers), 3) - 0.3)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    step = max(1, -(-len(layers) // 16))
    axes.set_xticks(places[::step], [str(layer) for layer in layers[::step]])
    axes.set_xlabel("layer")
    axes.spines["left"].set_visible(False)
    return figure


def draw_visual_against_text(types: pa.Table, title: str) -> Figure:
    """All neurons over (p_visual, p_text), coincident ones as one square of their colours."""
    figure = blank_sheet(title)
    types = types.filter(pc.field("n_exemplars") > 0)
    if not types.num_rows:
        say(figure, "No neuron with an exemplar was classified.")
        return figure
    type_legend(figure)
    steps = _lattice_steps(types)
    cells = _count_cells(types, steps)
    width = min(1 / steps, _WIDEST_SQUARE)
    side = 3.0
    axes = plain_axes(figure, 0.55, 0.48, side, side)
    above = plain_axes(figure, 0.55, 0.48 + side + 0.05, side, 0.42)
    beside = plain_axes(figure, 0.55 + side + 0.05, 0.48, 0.75, side)
    _draw_squares(axes, cells, steps, width)
    _draw_margin(above, cells, "visual", steps, width)
    _draw_margin(beside, cells, "text", steps, width)
    edge = width / 2
    axes.plot([0, 1], [1, 0], color=LIGHT["hairline"], linewidth=0.7, zorder=0)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set(xlim=(-edge, 1 + edge), ylim=(-edge, 1 + edge), xticks=ticks, yticks=ticks)
    axes.set_xlabel("share of exemplars that are visual, p_visual")
    axes.set_ylabel("share that are text, p_text")
    for bare, limits in ((above, axes.get_xlim()), (beside, axes.get_ylim())):
        bare.spines[["left", "bottom"]].set_visible(False)
        bare.set_xticks([])
        bare.set_yticks([])
        (bare.set_xlim if bare is above else bare.set_ylim)(limits)
    _size_key(axes, cells, width)
    return figure


def _count_types(types: pa.Table) -> pl.DataFrame:
    """A row a layer: the number of neurons of each type, zero where there is none."""
    counted = (
        pl.DataFrame(types.select(["layer", "type"]))
        .group_by("layer", "type")
        .len()
        .pivot("type", index="layer", values="len")
        .sort("layer")
    )
    missing = [pl.lit(0).alias(name) for name in TYPES if name not in counted.columns]
    return counted.with_columns(missing).with_columns(pl.col(TYPES).fill_null(0))


def _write_shares(
    axes: Axes, places: np.ndarray, bottom: np.ndarray, shares: np.ndarray, colour: str
) -> None:
    for place, low, share in zip(places, bottom, shares, strict=True):
        if share >= _WORTH_A_WORD:
            axes.text(
                place,
                low + share / 2,
                f"{share:.0%}".replace("%", " %"),
                ha="center",
                va="center",
                fontsize=8.3,
                color=colour,
            )


def _note_counts(axes: Axes, places: np.ndarray, numbers: np.ndarray) -> None:
    style: dict[str, Any] = {
        "fontsize": 8.3,
        "color": LIGHT["muted"],
        "va": "bottom",
        "clip_on": False,
    }
    if len(places) <= _ROOM_FOR_WORDS:
        for place, number in zip(places, numbers, strict=True):
            axes.text(place, 1.015, f"n = {number:,}", ha="center", **style)
        return
    if numbers.min() == numbers.max():
        note = f"{numbers[0]:,} neurons in each layer"
    else:
        note = f"{numbers.min():,} to {numbers.max():,} neurons a layer"
    axes.text(0, 1.015, f"{note}, {numbers.sum():,} in all", transform=axes.transAxes, **style)


def _lattice_steps(types: pa.Table) -> int:
    """Shares of N exemplars lie on N + 1 places; more than can be seen are gathered."""
    most = int(types["n_exemplars"].to_numpy().max())
    return min(max(most, 1), _FINEST_LATTICE)


def _count_cells(types: pa.Table, steps: int) -> pl.DataFrame:
    """The number of neurons of each type at each place (visual, text) of the lattice."""
    place = {
        axis: (pl.col(f"p_{axis}").fill_nan(0) * steps).round().cast(pl.Int64)
        for axis in ("visual", "text")
    }
    return (
        pl.DataFrame(types.select(["p_visual", "p_text", "type"]))
        .with_columns(**place)
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
    corners = np.stack(
        [
            np.stack([start, bottom], axis=1),
            np.stack([stop, bottom], axis=1),
            np.stack([stop, bottom + side], axis=1),
            np.stack([start, bottom + side], axis=1),
            np.stack([start, bottom], axis=1),
        ],
        axis=1,
    )
    kinds = whole["type"].to_numpy()
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    # One outline a type keeps an SVG of a thousand squares small.
    for name, colour in type_colours().items():
        mine = corners[kinds == name]
        if len(mine):
            outline = Outline(mine.reshape(-1, 2), codes * len(mine))
            axes.add_patch(PathPatch(outline, facecolor=colour, linewidth=0, label=name))


def _sides(numbers: np.ndarray, width: float, most: int | None = None) -> np.ndarray:
    most = int(numbers.max()) if most is None else most
    share = np.log(numbers) / np.log(most) if most > 1 else np.ones(len(numbers))
    return width * 0.96 * (_SMALLEST_SIDE + (1 - _SMALLEST_SIDE) * share)


def _draw_margin(axes: Axes, cells: pl.DataFrame, along: str, steps: int, width: float) -> None:
    """Stacked numbers of neurons along one of the two shares."""
    start = np.zeros(steps + 1)
    for name, colour in type_colours().items():
        summed = cells.filter(pl.col("type") == name).group_by(along).agg(pl.col("n").sum())
        numbers = np.zeros(steps + 1)
        numbers[summed[along].to_numpy()] = summed["n"].to_numpy()
        places = np.arange(steps + 1) / steps
        if along == "visual":
            axes.bar(places, numbers, bottom=start, width=0.85 * width, color=colour)
        else:
            axes.barh(places, numbers, left=start, height=0.85 * width, color=colour)
        start += numbers


def _size_key(axes: Axes, cells: pl.DataFrame, width: float) -> None:
    """What the squares' sides mean, in the corner that no neuron can reach."""
    most = int(cells.group_by("visual", "text").agg(pl.col("n").sum())["n"].max())  # type: ignore[arg-type]
    # Powers of ten, less one that comes too near to the largest.
    powers = [10**power for power in range(len(str(most)))]
    numbers = sorted({1, most, *(power for power in powers if power <= most / 2)})
    sides = _sides(np.array(numbers), width, most)
    for row, (number, side) in enumerate(zip(numbers, sides, strict=True)):
        y = 0.97 - row * max(0.07, width * 1.08)
        x = 0.74
        square = Rectangle(
            (x - side / 2, y - side / 2), side, side, facecolor=LIGHT["muted"], linewidth=0
        )
        axes.add_patch(square)
        axes.text(
            x + width / 2 + 0.03,
            y,
            f"{number:,} neuron" if number == 1 else f"{number:,}",
            va="center_baseline",
            fontsize=8.3,
            color=LIGHT["muted"],
        )
