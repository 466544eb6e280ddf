"""Draw what groups of neurons do: ablation with its random band, and steering curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import (
    blank_sheet,
    panels,
    type_legend,
    write_message,
    write_note,
)
from neuron_atlas.tasks.report.palette import LIGHT, type_colors

_PANELS = {
    "visual_words": "loss of visual words with the image, nats a token",
    "function_words": "loss of function words with the image, nats a token",
    "text_alone": "loss of text without the image, nats a token",
}
_STEERED = {
    "right": "right names in the description, of those named or there",
    "visual_words": "loss of visual words, nats a token",
    "other_words": "loss of all other text, nats a token",
}
_GAP = 0.17
_NAMED = "score"
"""Color of groups that the user names."""


def draw_ablation(effects: pl.DataFrame, title: str) -> Figure:
    """Draw the effect of each group by share, with interval and random band: a panel a measure.

    Of several ranges of layers, the first one and the named groups.
    """
    figure = blank_sheet(title)
    types = effects.filter(pl.col("group").is_in(TYPES))
    if not types.is_empty():
        first = types.select("first_layer", "last_layer").row(0, named=True)
        types = types.filter(
            pl.col("first_layer") == first["first_layer"],
            pl.col("last_layer") == first["last_layer"],
        )
    named = effects.filter(~pl.col("group").is_in(TYPES))
    rows = pl.concat([types, named])
    groups = list(dict.fromkeys(rows["group"].to_list()))
    shares = sorted(set(types["share"].to_list())) or [0.0]
    type_legend(figure, colors={name: _color(name) for name in groups})
    margins = {"left": 0.72, "right": 0.15, "head": 0.52, "foot": 0.46, "gap": 0.5}
    for axes, (measure, words) in zip(
        panels(figure, len(_PANELS), **margins), _PANELS.items(), strict=True
    ):
        for place, group in enumerate(groups):
            mine = rows.filter(pl.col("group") == group, pl.col("measure") == measure)
            offset = (place - (len(groups) - 1) / 2) * _GAP
            _draw_group(axes, mine.to_dicts(), shares, offset, _color(group))
        axes.axhline(0, color=LIGHT["hairline"], linewidth=0.8, zorder=0)
        axes.set_xlim(-0.6, len(shares) - 0.4)
        axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
        axes.locator_params(axis="y", nbins=4)
        write_note(axes, words)
    axes.set_xlabel("share of each layer\N{RIGHT SINGLE QUOTATION MARK}s neurons")
    return figure


def draw_steering(effects: pl.DataFrame, title: str) -> Figure:
    """Draw the measure of each steered group by factor, on the half that did not choose it."""
    figure = blank_sheet(title)
    reported = effects.filter(pl.col("half") == "report")
    objectives = _objectives(reported)
    if not objectives:
        write_message(figure, "No group was steered.")
        return figure
    groups = list(dict.fromkeys(reported["group"].to_list()))
    type_legend(figure, colors={name: _color(name) for name in groups})
    margins = {"left": 0.72, "right": 0.15, "head": 0.52, "foot": 0.46, "gap": 0.5}
    sheets = list(panels(figure, len(objectives), **margins))
    for axes, measure in zip(sheets, objectives, strict=True):
        alphas = sorted({1.0, *reported["alpha"].to_list()})
        for group in groups:
            mine = reported.filter(pl.col("group") == group, pl.col("measure") == measure)
            _draw_curve(axes, mine.sort("alpha").to_dicts(), alphas, _color(group))
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes.locator_params(axis="y", nbins=4)
        write_note(axes, _STEERED.get(measure, measure))
    sheets[-1].set_xlabel("factor of the neurons\N{RIGHT SINGLE QUOTATION MARK} activations")
    return figure


def _objectives(reported: pl.DataFrame) -> list[str]:
    """Return at most three measures to draw: what groups say, then what is right, then losses."""
    known = list(dict.fromkeys(reported["measure"].to_list()))
    says = [name for name in known if name.startswith("says ")]
    others = [name for name in ("right", "visual_words", "other_words") if name in known]
    return [*says, *others][:3]


def _draw_group(
    axes: Axes,
    rows: Sequence[dict[str, Any]],
    shares: Sequence[float],
    offset: float,
    color: str,
) -> None:
    found = []
    for row in rows:
        x = (shares.index(row["share"]) if row["share"] in shares else len(shares) - 1) + offset
        if row["band_low"] is not None:
            axes.plot([x, x], [row["band_low"], row["band_high"]], color=color, alpha=0.28,
                      linewidth=7, solid_capstyle="butt", zorder=1)  # fmt: skip
        if row["effect"] is None:
            continue
        if row["ci_low"] is not None:
            axes.plot([x, x], [row["ci_low"], row["ci_high"]], color=color, linewidth=1.1, zorder=2)
        face = color if row["status"] == "ok" else LIGHT["paper"]
        axes.plot([x], [row["effect"]], marker="o", markersize=4, color=color,
                  markerfacecolor=face, zorder=3)  # fmt: skip
        found.append((x, row["effect"]))
    if len(found) > 1:
        axes.plot(*zip(*found, strict=True), color=color, linewidth=0.9, zorder=2)


def _draw_curve(
    axes: Axes, rows: Sequence[dict[str, Any]], alphas: Sequence[float], color: str
) -> None:
    if not rows:
        return
    one = alphas.index(1.0)
    intact = rows[0]["intact"]
    points = {one: intact} | {
        alphas.index(row["alpha"]): row["changed"] for row in rows if row["changed"] is not None
    }
    places = sorted(points)
    axes.plot(places, [points[at] for at in places], color=color, linewidth=1.2, marker="o",
              markersize=3, zorder=3)  # fmt: skip
    bands = {one: (intact, intact)} | {
        alphas.index(row["alpha"]): (intact + row["band_low"], intact + row["band_high"])
        for row in rows
        if row["band_low"] is not None
    }
    if len(bands) > 1:
        at = sorted(bands)
        low, high = np.array([bands[place] for place in at]).T
        axes.fill_between(at, low, high, color=color, alpha=0.22, linewidth=0, zorder=1)
    for row in rows:
        if row["chosen"] and row["changed"] is not None:
            axes.plot([alphas.index(row["alpha"])], [row["changed"]], marker="o", markersize=9,
                      markerfacecolor="none", color=LIGHT["ink"], zorder=4)  # fmt: skip


def _color(group: str) -> str:
    return type_colors().get(group, LIGHT[_NAMED])
