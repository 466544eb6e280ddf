"""Say which budgets ended a run before all of its neurons were done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from neuron_atlas.workflows.config.settings import Settings

_STAGES = {"explanations": "explain", "simulations": "simulate"}


def budget_lines(failures: Iterable[Mapping[str, Any]], settings: Settings) -> list[str]:
    """Return a line for each budget that was reached, from the report's counts of failures."""
    budgets = {
        "explain": settings.explain.budget_usd,
        "simulate": settings.simulate.budget_usd,
    }
    return [
        _line(_STAGES[one["table"]], one["table"], one["count"], budgets[_STAGES[one["table"]]])
        for one in failures
        if one["status"] == "budget" and one["table"] in _STAGES
    ]


def _line(stage: str, table: str, count: int, budget_usd: float | None) -> str:
    limit = "" if budget_usd is None else f" (${budget_usd:,.2f})"
    return (
        f"{stage}.budget_usd{limit} was reached: {count:,} {table} were not paid for, and the page "
        f"shows what was. Raise {stage}.budget_usd and run the same command to go on"
    )
