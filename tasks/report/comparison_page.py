"""The comparison of a sweep as a folder: its page, its figures, its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.canvas import png_bytes, svg_text
from neuron_atlas.tasks.report.comparison import JobTables, compare
from neuron_atlas.tasks.report.comparison_figures import draw_comparison
from neuron_atlas.tasks.report.palette import DARK, LIGHT, css_variables

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
    svgs = []
    names = [_PAGE, _TABLE]
    for plate in plates:
        svgs.append((plate, Markup(svg_text(plate.figure))))
        names.append(f"figures/{plate.name}.png")
        (folder / names[-1]).write_bytes(png_bytes(plate.figure))
    compared.write_csv(folder / _TABLE)
    environment = Environment(
        loader=PackageLoader("neuron_atlas.tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    page = environment.get_template("comparison.html").render(
        name=name,
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        plates=svgs,
        types=TYPES,
        rows=compared.filter(pl.col("layer").is_null()).to_dicts(),
        pages={job.name: job.page for job in jobs},
        failed=failed,
    )
    (folder / _PAGE).write_text(page, encoding="utf-8")
    return names, compared.to_dict(as_series=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
