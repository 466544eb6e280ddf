"""Give a score a plain verdict: clear, weak or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from neuron_atlas.tasks.report.controls import strongest_control
from neuron_atlas.tasks.report.wording import signed

VERDICTS = ("clear", "weak", "none")
MEANINGS = {
    "clear": "The explanation beats every control at the configured false discovery rate "
    "(score.max_q), and the lower end of the margin's 95 % interval is above 0.",
    "weak": "The margin is above 0, but the score does not meet both conditions of clear.",
    "none": "The margin is not above 0: a control, or chance, predicts the neuron as well.",
}
"""The rule, by verdict. A score that could not be computed has no verdict."""
VERDICT_COLUMNS = ("status", "correlation", "margin", "margin_low", "q")
"""Columns of `scores` that decide a verdict."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a score. word: one of VERDICTS. numbers: the numbers behind it, in words."""

    word: str
    numbers: str

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, such as "clear: 0.62, 0.31 above the best control ..."."""
        return f"{self.word}: {self.numbers}"


def judge_score(score: Mapping[str, Any], level: float | None) -> Verdict | None:
    """Return the verdict on a row of `scores`; None if the row has no score or no margin.

    level: largest q that beats the controls; None if the run has none, so no score is clear.
    """
    word = verdict_word(score, level)
    return None if word is None else Verdict(word, _numbers(score))


def verdict_word(score: Mapping[str, Any], level: float | None) -> str | None:
    """Return the word of `judge_score`. score: needs only VERDICT_COLUMNS."""
    correlation, margin, low, q = (_known(score[name]) for name in VERDICT_COLUMNS[1:])
    if score["status"] != "ok" or correlation is None or margin is None:
        return None
    if margin <= 0:
        return "none"
    beats = q is not None and level is not None and q <= level
    return "clear" if beats and low is not None and low > 0 else "weak"


def false_discovery_level(aggregates: pa.Table) -> float | None:
    """Return the false discovery rate of a run from its `score_aggregates`; None without scores."""
    levels = aggregates["max_q"].drop_null().to_pylist()
    return levels[0] if levels else None


def count_verdicts(scores: pa.Table, level: float | None) -> list[dict[str, Any]]:
    """Count the verdicts on each explainer with each simulator, in the order of `scores`.

    Each row holds explainer, simulator, a number for each of VERDICTS, and `unscored`, the number
    of scores without a verdict. scores: rows over all tokens.
    """
    counted: dict[tuple[str, str], dict[str, Any]] = {}
    for row in scores.select(["explainer", "simulator", *VERDICT_COLUMNS]).to_pylist():
        key = row["explainer"], row["simulator"]
        names = {"explainer": key[0], "simulator": key[1]}
        counts = counted.setdefault(key, names | dict.fromkeys((*VERDICTS, "unscored"), 0))
        counts[verdict_word(row, level) or "unscored"] += 1
    return list(counted.values())


def _numbers(score: Mapping[str, Any]) -> str:
    margin, q = score["margin"], _known(score["q"])
    low, high = _known(score["margin_low"]), _known(score["margin_high"])
    bounds = "" if low is None or high is None else f"{signed(low)} to {signed(high)}"
    if margin > 0:
        difference = f"{signed(margin)} above {_baseline(score)}"
        interval = f" ({bounds})" if bounds else ""
    else:
        difference = f"{signed(-margin)} below" if margin else "level with"
        difference = f"{difference} {_baseline(score)}"
        interval = f" (margin {bounds})" if bounds else ""
    test = "not tested" if q is None else f"q = {signed(q, 3)}" if q >= 0.0005 else "q < 0.001"
    return f"{signed(score['correlation'])}, {difference}{interval}, {test}"


def _baseline(score: Mapping[str, Any]) -> str:
    """Name what the margin is measured from: the best control, or 0."""
    best = strongest_control(score)
    if best is None or best.value <= 0:
        return "0, which no control exceeds"
    return f"the best control, {best.words}"


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else value
