"""The lines that close a run."""

from __future__ import annotations

from typing import Any

from workflows.stage import Context
from workflows.store import MANIFEST
from workflows.tracking import read_summary


def closing_summary(context: Context, tracking_uri: str) -> str:
    """Neurons by type, scores beside their control, failures, seconds, and where to look."""
    summary = read_summary(context)
    page = context.folder("report") / "index.html"
    lines = [
        "",
        _neurons(summary),
        _scores(summary),
        _failures(summary),
        _seconds(context),
        f"page       {page}",
        f"artifacts  {context.store.out / MANIFEST}",
        f"mlflow     {tracking_uri}",
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
    control = summary["mean_control"]
    beside = "no control" if control is None else f"control {control:.3f}"
    if summary["mean_margin"] is not None:
        beside += f", margin {summary['mean_margin']:.3f}"
    if summary["n_tested"]:
        beside += (
            f"; {summary['n_beat_control']:,} of {summary['n_tested']:,} tested beat their "
            f"controls at q {summary['level']:g}"
        )
    return f"scores     mean {summary['mean_score']:.3f} over {summary['n_scored']:,} ({beside})"


def _failures(summary: dict[str, Any]) -> str:
    if not summary["failures"]:
        return "failures   none"
    counted = (f"{row['count']:,} {row['table']} {row['status']}" for row in summary["failures"])
    return f"failures   {', '.join(counted)}"


def _seconds(context: Context) -> str:
    if not context.seconds:
        return "seconds    none: everything was already done"
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in context.seconds.items())
    return f"seconds    {spent}"
