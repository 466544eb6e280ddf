"""Draw figures of the analysis: shares with intervals, agreement, densities, responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from neuron_atlas.tasks.artifacts import ALL_LAYERS, TESTED_TYPES, TYPES
from neuron_atlas.tasks.report.analysis import Analysis
from neuron_atlas.tasks.report.canvas import (
    HEIGHT,
    SMALL,
    blank_sheet,
    layer_ticks,
    panels,
    percents,
    plain_axes,
    type_legend,
    write_message,
    write_note,
)
from neuron_atlas.tasks.report.palette import LIGHT, colors_by_tests, type_colors

_RULE_WORDS = {
    "paper": "by the paper\N{RIGHT SINGLE QUOTATION MARK}s rule",
    "tested": "by tests, undecided in the color of unknown",
}
_MEASURES = {
    "positive_visual": "share of visual tokens with an activation above 0",
    "positive_text": "share of text tokens with an activation above 0",
    "concentration": "how concentrated an image excites it: 0 evenly, 1 at one token",
}
_LEAST_DENSITY = 1e-4
_DENSITY_BINS = np.linspace(np.log10(_LEAST_DENSITY), 0, 33)


def draw_share_intervals(analysis: Analysis, title: str) -> Figure:
    """Draw the share of each type by layer with its 95 % interval, one panel per rule."""
    figure = blank_sheet(title)
    if analysis.shares.is_empty():
        write_message(figure, "No neuron was classified.")
        return figure
    rules = analysis.rules
    silent = {"silent": LIGHT["silent"]} if "tested" in rules else {}
    colors = type_colors() | silent
    type_legend(figure, colors=colors)
    margins = {"left": 0.55, "right": 0.15, "head": 0.52, "foot": 0.46, "gap": 0.5}
    for axes, rule in zip(panels(figure, len(rules), **margins), rules, strict=True):
        rows = analysis.shares.filter(pl.col("rule") == rule, pl.col("layer") != ALL_LAYERS)
        _draw_intervals(axes, rows, _colors_of(rule))
        write_note(axes, _RULE_WORDS[rule])
    axes.set_xlabel("layer")
    return figure


def draw_agreement(analysis: Analysis, title: str) -> Figure:
    """Draw the numbers of neurons by type under the paper's rule and by tests, with kappa."""
    figure = blank_sheet(title)
    counts = analysis.agreement
    if counts.is_empty() or not counts["n"].sum():
        write_message(
            figure,
            "The neurons were typed by the paper\N{RIGHT SINGLE QUOTATION MARK}s rule alone.",
        )
        return figure
    numbers = np.array(
        [
            [counts.filter(type=kind, type_tested=tested)["n"].sum() for tested in TESTED_TYPES]
            for kind in TYPES
        ]
    )
    side = 0.76
    axes = plain_axes(figure, 0.95, 0.35, side * len(TESTED_TYPES), side * len(TYPES))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlim=(0, len(TESTED_TYPES)), ylim=(len(TYPES), 0))
    axes.set_xticks(np.arange(len(TESTED_TYPES)) + 0.5, TESTED_TYPES)
    axes.set_yticks(np.arange(len(TYPES)) + 0.5, TYPES)
    axes.xaxis.tick_top()
    for row, kind in enumerate(TYPES):
        for column, number in enumerate(numbers[row]):
            share = number / max(1, numbers[row].sum())
            _draw_cell(axes, row, column, number, share, LIGHT[kind])
    axes.text(len(TESTED_TYPES) / 2, -0.42, "by tests", ha="center", **SMALL)
    axes.text(
        0,
        len(TYPES) + 0.22,
        "rows: by the paper\N{RIGHT SINGLE QUOTATION MARK}s rule, with the share of each row",
        **SMALL,
    )
    (agreed,) = analysis.kappa.to_dicts()
    words = "not defined"
    if agreed["kappa"] is not None:
        words = f"{agreed['kappa']:.2f} (95 %: {agreed['ci_low']:.2f} to {agreed['ci_high']:.2f})"
    figure.text(
        0.02,
        1 - 0.42 / HEIGHT,
        f"Cohen\N{RIGHT SINGLE QUOTATION MARK}s kappa {words}, over {numbers.sum():,} neurons",
        va="center_baseline",
        fontsize=8.8,
        color=LIGHT["ink"],
    )
    return figure


def draw_densities(analysis: Analysis, title: str) -> Figure:
    """Draw histograms of the share of active tokens, per type except silent, on a log scale."""
    figure = blank_sheet(title)
    if analysis.densities.is_empty():
        write_message(figure, "No neuron was classified.")
        return figure
    rule = analysis.rules[-1]
    present = set(analysis.densities["type"].unique()) - {"silent"}
    colors = {name: c for name, c in _colors_of(rule).items() if name in present}
    type_legend(figure, colors=colors)
    margins = {"left": 0.55, "right": 0.3, "head": 0.62, "foot": 0.36, "gap": 0.5}
    for axes, role in zip(panels(figure, 2, **margins), ("visual", "text"), strict=True):
        for name, color in colors.items():
            mine = analysis.densities.filter(type=name)[f"positive_{role}"].drop_nulls().to_numpy()
            _draw_density(axes, mine, color)
        axes.set_xlim(_DENSITY_BINS[0], 0)
        axes.set_ylim(bottom=0)
        percents(axes.yaxis)
        axes.locator_params(axis="y", nbins=4)
        axes.set_xticks(
            range(-4, 1), ["\N{LESS-THAN OR EQUAL TO} 0.01 %", "0.1 %", "1 %", "10 %", "100 %"]
        )
        write_note(axes, f"of each type, by the share of {role} tokens above 0")
    return figure


def draw_responses(analysis: Analysis, title: str) -> Figure:
    """Draw median and spread of each response measure, per type except silent."""
    figure = blank_sheet(title)
    rule = analysis.rules[-1] if analysis.rules else "paper"
    rows = analysis.responses.filter(pl.col("rule") == rule)
    if rows.filter(pl.col("type") != "silent").is_empty():
        write_message(figure, "No neuron responds to anything.")
        return figure
    known = set(rows["type"].unique()) - {"silent"}
    kinds = [kind for kind in _colors_of(rule) if kind in known]
    margins = {"left": 0.95, "right": 0.3, "head": 0.32, "foot": 0.3, "gap": 0.5}
    sheets = panels(figure, len(_MEASURES), **margins)
    for axes, (measure, words) in zip(sheets, _MEASURES.items(), strict=True):
        for height, kind in enumerate(kinds):
            found = rows.filter(type=kind, measure=measure).to_dicts()
            if found:
                _draw_range(axes, height, found[0], _colors_of(rule)[kind])
        axes.set(xlim=(0, 1), ylim=(len(kinds) - 0.5, -0.5))
        axes.set_yticks(range(len(kinds)), kinds)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        if measure == "concentration":
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        else:
            percents(axes.xaxis)
        write_note(axes, words)
    return figure


def _colors_of(rule: str) -> dict[str, str]:
    return colors_by_tests() if rule == "tested" else type_colors()


def _draw_intervals(axes: Axes, rows: pl.DataFrame, colors: Mapping[str, str]) -> None:
    layers = sorted(rows["layer"].unique())
    positions = np.arange(len(layers))
    for name, color in colors.items():
        mine = rows.filter(type=name).sort("layer")
        if not mine["n"].sum():
            continue
        low, high = mine["ci_low"].to_numpy(), mine["ci_high"].to_numpy()
        axes.fill_between(positions, low, high, color=color, alpha=0.28, linewidth=0)
        axes.vlines(positions, low, high, color=color, linewidth=1.0)
        axes.plot(positions, mine["share"], color=color, linewidth=1.2, marker="o", markersize=3)
    axes.set_xlim(-0.4, max(len(layers) - 0.6, 0.4))
    axes.set_ylim(bottom=0)
    percents(axes.yaxis)
    axes.locator_params(axis="y", nbins=4)
    layer_ticks(axes, layers)


def _draw_cell(axes: Axes, row: int, column: int, number: int, share: float, color: str) -> None:
    """Draw one cell. A larger share of its row gives a stronger color."""
    box: dict[str, Any] = {"xy": (column + 0.03, row + 0.03), "width": 0.94, "height": 0.94}
    axes.add_patch(Rectangle(**box, facecolor=LIGHT["panel"], linewidth=0))
    if not number:
        axes.text(column + 0.5, row + 0.5, "0", ha="center", va="center", **SMALL)
        return
    axes.add_patch(Rectangle(**box, facecolor=color, alpha=0.7 * share, linewidth=0))
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": LIGHT["ink"]}
    axes.text(column + 0.5, row + 0.42, f"{number:,}", fontsize=9.3, **style)
    percent = "<1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")
    axes.text(column + 0.5, row + 0.68, percent, fontsize=7.6, **style)


def _draw_density(axes: Axes, shares: np.ndarray, color: str) -> None:
    if not len(shares):
        return
    # Neurons below the range of the axis count at its left end.
    powers = np.log10(np.clip(shares, _LEAST_DENSITY, 1))
    counts = np.histogram(powers, _DENSITY_BINS)[0] / len(shares)
    axes.stairs(counts, _DENSITY_BINS, color=color, fill=True, alpha=0.22)
    axes.stairs(counts, _DENSITY_BINS, color=color, linewidth=1.2)


def _draw_range(axes: Axes, height: int, row: Mapping[str, Any], color: str) -> None:
    """Draw a thin line from 5 to 95 %, a thick line from 25 to 75 %, and a mark at the median."""
    y = [height, height]
    axes.plot([row["p5"], row["p95"]], y, color=color, linewidth=1.1, zorder=1)
    middle = [row["p25"], row["p75"]]
    axes.plot(middle, y, color=color, linewidth=6.5, solid_capstyle="butt", zorder=2)
    mark: dict[str, Any] = {"color": LIGHT["ink"], "linewidth": 1.4, "zorder": 3, "clip_on": False}
    axes.plot([row["p50"]] * 2, [height - 0.3, height + 0.3], **mark)
