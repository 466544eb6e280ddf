"""Write the comparison of a sweep's jobs, from their results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES, TYPE_SHARES, read_table
from neuron_atlas.tasks.artifacts.location import uploaded_folder
from neuron_atlas.tasks.report.comparison import JobTables
from neuron_atlas.workflows.sweep.jobs import JobResult


@dataclass(frozen=True)
class SweepComparison:
    """Written comparison: its folder, the names of its files, and its table by columns."""

    folder: Path
    names: Sequence[str]
    columns: Mapping[str, list[Any]]

    @property
    def page(self) -> Path:
        """The comparison's page."""
        return self.folder / "index.html"


def write_comparison(
    folder: Path, name: str, results: Sequence[JobResult]
) -> SweepComparison | None:
    """Write the page, figures and table of the finished jobs; None if no job has results."""
    complete = [one for one in results if one.has_results]
    if not complete:
        return None
    from neuron_atlas.tasks.report.comparison_page import write_comparison_page

    failed = {one.job.name: one.line for one in results if not one.has_results}
    jobs = [_tables(one, folder) for one in complete]
    with uploaded_folder(folder) as local:
        names, columns = write_comparison_page(local, name, jobs, failed)
    return SweepComparison(folder, names, columns)


def _tables(result: JobResult, folder: Path) -> JobTables:
    context = result.context
    assert context is not None
    page = context.folder("report") / "index.html"
    return JobTables(
        name=result.job.name,
        setting=result.job.other_choices,
        choices=result.job.choices,
        shares=read_table(context.paths("analyse", "type_shares"), TYPE_SHARES),
        aggregates=read_table(context.paths("score", "score_aggregates"), SCORE_AGGREGATES),
        page=os.path.relpath(str(page), str(folder)),
    )
