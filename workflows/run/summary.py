"""Format the closing lines of a run."""

from __future__ import annotations

from typing import Any

from neuron_atlas.tasks.report.controls import CONTROLS
from neuron_atlas.workflows.run.budget_end import budget_lines
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import MANIFEST
from neuron_atlas.workflows.tracking.metrics import read_summary


def closing_summary(context: Context, where: str) -> str:
    """Return neurons by type, scores with their strongest control, failures, seconds, nodes and
    links. where: of the run in MLflow."""
    summary = read_summary(context)
    page = context.folder("report") / "index.html"
    lines = [
        "",
        _neurons(summary),
        _scores(summary),
        _failures(summary),
        *(f"budget     {line}" for line in budget_lines(summary["failures"], context.settings)),
        _seconds(context),
        *_nodes(context),
        f"page       {page}",
        f"artifacts  {context.store.out / MANIFEST}",
        f"mlflow     {where}",
    ]
    return "\n".join(lines)


def _neurons(summary: dict[str, Any]) -> str:
    counts = summary["neurons"]
    total = sum(counts.values())
    by_type = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"neurons    {total:,}: {by_type}"


def _scores(summary: dict[str, Any]) -> str:
    if summary["mean_score"] is None:
        return "scores     none could be computed"
    several = len(summary["by_explainer"]) > 1
    return "\n".join(_score_line(row, summary["level"], several) for row in summary["by_explainer"])


def _score_line(row: dict[str, Any], level: float | None, several: bool) -> str:
    details = "no control"
    if row["control"] is not None:
        details = f"strongest control {row['control']:.3f}, {CONTROLS[row['strongest_control']]}"
    if row["margin"] is not None:
        details += f"; margin {row['margin']:.3f}"
    if row["tested"]:
        details += (
            f"; {row['beat_control']:,} of {row['tested']:,} tested beat their controls "
            f"at q {level:g}"
        )
    who = f", {row['explainer']} simulated by {row['simulator']}" if several else ""
    return f"scores     mean {row['mean']:.3f} over {row['n']:,} ({details}){who}{_why(row)}"


def _why(row: dict[str, Any]) -> str:
    """Return a line with the measures that say why the score is high or low."""
    named = {
        "purity": "purity",
        "random_purity": "purity by chance",
        "recall": "recall",
        "top_random_correlation": "top and random",
        "control_broader": "broader claims",
        "control_narrower": "narrower claims",
    }
    known = [f"{name} {row[key]:.3f}" for key, name in named.items() if row[key] is not None]
    return f"\nmeasures   {', '.join(known)}" if known else ""


def _failures(summary: dict[str, Any]) -> str:
    if not summary["failures"]:
        return "failures   none"
    counted = (f"{row['count']:,} {row['table']} {row['status']}" for row in summary["failures"])
    return f"failures   {', '.join(counted)}"


def _seconds(context: Context) -> str:
    if not context.stats.seconds:
        return "seconds    none: everything was already done"
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in context.stats.seconds.items())
    return f"seconds    {spent}"


def _nodes(context: Context) -> list[str]:
    """Return a line with the nodes that worked on each part; none for a single node."""
    if max(context.stats.nodes.values(), default=0) < 2:
        return []
    return [
        "nodes      " + ", ".join(f"{name} {count}" for name, count in context.stats.nodes.items())
    ]
