"""Draw figures of the effects: their size by layer and type, and the check by exact ablation."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from neuron_atlas.tasks.report.canvas import (
    HEIGHT,
    WIDTH,
    blank_sheet,
    layer_ticks,
    plain_axes,
    type_legend,
    write_message,
    write_note,
)
from neuron_atlas.tasks.report.effects import EffectsSummary
from neuron_atlas.tasks.report.palette import LIGHT, type_colors


def draw_effects(summary: EffectsSummary, title: str) -> Figure:
    """Draw the median absolute effect by layer, a line for each type, on a logarithmic scale."""
    figure = blank_sheet(title)
    known = summary.effects.filter(pl.col("size") > 0)
    if known.is_empty():
        write_message(figure, "No neuron has an effect.")
        return figure
    type_legend(figure)
    axes = plain_axes(figure, 0.75, 0.48, WIDTH - 0.95, HEIGHT - 1.42)
    layers = sorted(known["layer"].unique())
    medians = known.group_by("layer", "type").agg(pl.col("size").median())
    for name, color in type_colors().items():
        mine = dict(medians.filter(type=name).select("layer", "size").rows())
        places = [place for place, layer in enumerate(layers) if layer in mine]
        values = [mine[layers[place]] for place in places]
        axes.plot(places, values, color=color, linewidth=1.2, marker="o", markersize=3.5)
    axes.set_yscale("log")
    axes.set_xlim(-0.4, max(len(layers) - 0.6, 0.4))
    layer_ticks(axes, layers)
    axes.set_xlabel("layer")
    write_note(axes, "nats per token of the description")
    return figure


def draw_check(summary: EffectsSummary, title: str) -> Figure:
    """Draw exact effects against the attribution, a point for each neuron."""
    figure = blank_sheet(title)
    checked = summary.checked
    if checked.is_empty():
        write_message(figure, "No neuron was ablated exactly (effects.ablations is 0).")
        return figure
    type_legend(figure)
    side = HEIGHT - 1.5
    axes = plain_axes(figure, 0.95, 0.5, side, side)
    bound = 1.1 * max(
        float(np.abs(checked[name].to_numpy()).max()) for name in ("change", "first_order")
    )
    bound = bound or 1.0
    # Effects span powers of ten and both signs.
    linear = max(bound / 1000, 1e-9)
    axes.plot([-bound, bound], [-bound, bound], color=LIGHT["muted"], linewidth=0.8, zorder=1)
    for name, color in type_colors().items():
        mine = checked.filter(type=name)
        axes.scatter(mine["first_order"], mine["change"], color=color, s=14, linewidth=0, zorder=2)
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("symlog", linthresh=linear)
        getattr(axes, f"set_{axis}lim")(-bound, bound)
    ticks = [-bound, -linear, 0, linear, bound]
    words = [f"{one:.0e}" if one else "0" for one in ticks]
    axes.set_xticks(ticks, words)
    axes.set_yticks(ticks, words)
    axes.minorticks_off()
    axes.set_xlabel("attribution, nats per token")
    write_note(axes, "exact, nats per token")
    return figure
