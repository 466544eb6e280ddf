"""Write the comparison of a sweep as a folder with a page, figures and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import png_bytes
from neuron_atlas.tasks.report.comparison import JobTables, compare_jobs
from neuron_atlas.tasks.report.comparison_figures import draw_comparison
from neuron_atlas.tasks.report.controls import CONTROL_TERMS, CONTROLS
from neuron_atlas.tasks.report.pages import template_environment
from neuron_atlas.tasks.report.palette import color_css

_PAGE = "index.html"
_TABLE = "comparison.csv"


def write_comparison_page(
    folder: Path, name: str, jobs: Sequence[JobTables], failed: Mapping[str, str]
) -> tuple[list[str], dict[str, list[Any]]]:
    """Write index.html, comparison.csv and figures/ into `folder`.

    name: name of the sweep. failed: reason why a job has no results, by the job's name. Returns the
    names of the files, and the table by columns.
    """
    compared = compare_jobs(jobs)
    figures = draw_comparison(compared)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    pictures = {f"figures/{one.name}.png": png_bytes(one.figure) for one in figures}
    for picture, content in pictures.items():
        (folder / picture).write_bytes(content)
    compared.write_csv(folder / _TABLE)
    page = (
        template_environment()
        .get_template("comparison.html")
        .render(
            name=name,
            colors=Markup(color_css()),
            figures=[(one, Markup(one.svg)) for one in figures],
            types=TYPES,
            terms={words: CONTROL_TERMS[name] for name, words in CONTROLS.items()},
            rows=compared.filter(pl.col("layer").is_null()).to_dicts(),
            pages={job.name: job.page for job in jobs},
            failed=failed,
        )
    )
    (folder / _PAGE).write_text(page, encoding="utf-8")
    return [_PAGE, _TABLE, *pictures], compared.to_dict(as_series=False)
