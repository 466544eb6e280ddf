"""Read what groups of neurons do, and say it in words for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from neuron_atlas.tasks.artifacts import TableSpec, read_table
from neuron_atlas.tasks.artifacts.grouped import DISSOCIATIONS, GROUP_EFFECTS, STEERING_EFFECTS
from neuron_atlas.tasks.report.figures import ReportFigure
from neuron_atlas.tasks.report.group_figures import draw_ablation, draw_steering

GROUP_TABLES = (GROUP_EFFECTS, DISSOCIATIONS, STEERING_EFFECTS)

MEASURES = {
    "visual_words": "loss of visual words",
    "function_words": "loss of function words",
    "other_words": "loss of all other text",
    "text_alone": "loss of text without the image",
    "right": "right names (of those named or there)",
    "wrong_names": "wrong names (CHAIR)",
    "recall": "things that are named",
    "length": "length in words",
    "yes_no_correct": "yes/no questions answered rightly",
    "yes_ratio": "share of yes",
}
"""Measures in words. Others are named as they are."""
_VERDICTS = {
    "double": "a double dissociation: each type matters more than the other for its own measure",
    "single": "a single dissociation: the contrast differs from 0, but not each type matters more "
    "than the other for its own measure",
    "none": "no dissociation",
    "broken": "no result: without these neurons the model no longer speaks",
    "undefined": "no result: the measure is not defined",
}


@dataclass(frozen=True)
class GroupReport:
    """Effects of ablating and steering groups: the rows of the three tables."""

    effects: pl.DataFrame
    dissociations: pl.DataFrame
    steering: pl.DataFrame

    def figures(self) -> list[ReportFigure]:
        """Return the figures of what was measured."""
        drawn = []
        if not self.effects.is_empty():
            title = "Without neurons of a type"
            drawn.append(
                ReportFigure(
                    "group_ablation",
                    title,
                    "The change of the loss without a share of the neurons of each layer, by type, "
                    "with its 95 % interval over samples. The pale bars go from the lowest to the "
                    "highest effect of random neurons that match in layer, number and activation.",
                    "Look for marks outside their pale bar: there it matters which neurons these "
                    "are, and not only how many.",
                    draw_ablation(self.effects, title),
                )
            )
        if not self.steering.is_empty():
            title = "With neurons scaled"
            drawn.append(
                ReportFigure(
                    "group_steering",
                    title,
                    "The measure by which the factor was chosen, on the other half of the samples, "
                    "by factor. The chosen factor has a ring. Pale: the range of matched random "
                    "neurons.",
                    "Look for a ring outside the pale range, where other types stay flat.",
                    draw_steering(self.steering, title),
                )
            )
        return drawn

    def sentences(self) -> list[str]:
        """Return the verdict on each dissociation in words."""
        return [*self._contrasts(), *self._chosen()]

    def _contrasts(self) -> list[str]:
        return [
            f"{_words(row['measure']).capitalize()} against {_words(row['other_measure'])}, "
            f"without {row['share']:.0%} of a layer's neurons ({row['group']} or {row['other']}): "
            f"{_VERDICTS[row['verdict']]}{_numbers(row)}."
            for row in self.dissociations.to_dicts()
        ]

    def _chosen(self) -> list[str]:
        """Say for which steered groups no factor was chosen."""
        steered = self.steering.filter(pl.col("n_random") > 0)
        names = dict.fromkeys(steered["group"].to_list())
        chosen = set(steered.filter(pl.col("chosen"))["group"].to_list())
        return [
            f"Scaling {name}: no factor is better than no change on the half that chooses."
            for name in names
            if name not in chosen
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Return the effects for the page, with measures and layers in words."""
        chosen = self.steering.filter(pl.col("chosen"), pl.col("half") == "report")
        shown = pl.concat([self.effects, chosen], how="vertical_relaxed").to_dicts()
        return [
            row
            | {
                "words": _words(row["measure"]),
                "layers": f"{row['first_layer']} to {row['last_layer']}",
                "how": "ablated" if not row["alpha"] else f"times {row['alpha']:g}",
            }
            for row in shown
        ]


def read_groups(tables: Mapping[str, Sequence[Path]]) -> GroupReport | None:
    """Read the effects of groups; None for a run without any."""
    if not tables.get(GROUP_EFFECTS.name):
        return None
    return GroupReport(*(_read(tables.get(spec.name, ()), spec) for spec in GROUP_TABLES))


def write_groups(folder: Path, groups: GroupReport | None) -> None:
    """Write the tables as CSV files."""
    if groups is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for spec, frame in zip(
        GROUP_TABLES, (groups.effects, groups.dissociations, groups.steering), strict=True
    ):
        if not frame.is_empty():
            frame.write_csv(folder / f"{spec.name}.csv")


def _read(paths: Sequence[Path], spec: TableSpec) -> pl.DataFrame:
    return pl.DataFrame(read_table(list(paths), spec))


def _words(measure: str) -> str:
    if measure.startswith("says "):
        return f"descriptions with a word of {measure.removeprefix('says ')}"
    return MEASURES.get(measure, measure)


def _numbers(row: Mapping[str, Any]) -> str:
    if row["contrast"] is None or row["p"] is None:
        return ""
    return (
        f" (contrast {row['contrast']:.3g} nats, 95 %: {row['ci_low']:.3g} to "
        f"{row['ci_high']:.3g}; p {row['p']:.3f} over samples, {row['p_random']:.3f} among random "
        "neurons)"
    )
