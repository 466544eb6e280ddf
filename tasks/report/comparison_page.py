"""The comparison of a sweep as a folder: its page, its figures, its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import png_bytes
from neuron_atlas.tasks.report.comparison import JobTables, compare
from neuron_atlas.tasks.report.comparison_figures import draw_comparison
from neuron_atlas.tasks.report.pages import environment
from neuron_atlas.tasks.report.palette import colour_style

_PAGE = "index.html"
_TABLE = "comparison.csv"


def write_comparison_page(
    folder: Path, name: str, jobs: Sequence[JobTables], failed: Mapping[str, str]
) -> tuple[list[str], dict[str, list[Any]]]:
    """Write index.html, comparison.csv and figures/ into `folder`; gives their names, and the
    table by columns.

    name: of the sweep. failed: why other jobs have no results, by their name.
    """
    compared = compare(jobs)
    plates = draw_comparison(compared)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    pictures = {f"figures/{plate.name}.png": png_bytes(plate.figure) for plate in plates}
    for picture, content in pictures.items():
        (folder / picture).write_bytes(content)
    compared.write_csv(folder / _TABLE)
    page = (
        environment()
        .get_template("comparison.html")
        .render(
            name=name,
            colours=Markup(colour_style()),
            plates=[(plate, Markup(plate.svg)) for plate in plates],
            types=TYPES,
            rows=compared.filter(pl.col("layer").is_null()).to_dicts(),
            pages={job.name: job.page for job in jobs},
            failed=failed,
        )
    )
    (folder / _PAGE).write_text(page, encoding="utf-8")
    return [_PAGE, _TABLE, *pictures], compared.to_dict(as_series=False)
