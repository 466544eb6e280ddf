"""Reads what the jobs of a sweep left, and has it laid side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES, TYPE_SHARES, read_table
from neuron_atlas.tasks.artifacts.location import filling
from neuron_atlas.tasks.report.comparison import JobTables
from neuron_atlas.workflows.sweep.jobs import Ended


@dataclass(frozen=True)
class Compared:
    """The folder of a comparison, its files in it, and its table by columns."""

    folder: Path
    names: Sequence[str]
    columns: Mapping[str, list[Any]]

    @property
    def page(self) -> Path:
        """Where it is read."""
        return self.folder / "index.html"


def write_comparison(folder: Path, name: str, ended: Sequence[Ended]) -> Compared | None:
    """Write the page, figures and table of the jobs that finished; None where there is none."""
    whole = [one for one in ended if one.is_whole]
    if not whole:
        return None
    from neuron_atlas.tasks.report.comparison_page import write_comparison_page

    failed = {one.job.name: one.line for one in ended if not one.is_whole}
    jobs = [_tables(one, folder) for one in whole]
    with filling(folder) as local:
        names, columns = write_comparison_page(local, name, jobs, failed)
    return Compared(folder, names, columns)


def _tables(ended: Ended, folder: Path) -> JobTables:
    context = ended.context
    assert context is not None
    page = context.folder("report") / "index.html"
    return JobTables(
        name=ended.job.name,
        setting=ended.job.beside_layers,
        choices=ended.job.choices,
        shares=read_table(context.paths("analyse", "type_shares"), TYPE_SHARES),
        aggregates=read_table(context.paths("score", "score_aggregates"), SCORE_AGGREGATES),
        page=os.path.relpath(str(page), str(folder)),
    )
