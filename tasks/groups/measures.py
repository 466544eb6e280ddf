"""Turn the rows of all samples into measures: a ratio of sums for each condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.groups.sets import INTACT, Group
from neuron_atlas.tasks.groups.statistics import Measured

LOSSES = {
    "visual_words": "visual",
    "function_words": "function",
    "other_words": "other",
    "text_alone": "alone",
}
"""Measures of loss, and what their columns in `group_losses` start with."""
GUARD = "other_words"
"""The measure whose perplexity says whether the subject still speaks."""
SAYS = "says "

_KEY = ("group", "share", "first_layer", "last_layer", "draw", "alpha")
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class ConditionKey:
    """A condition by its key in the tables."""

    group: Group
    draw: int
    alpha: float


@dataclass(frozen=True)
class Results:
    """All measures of all conditions.

    keys: of the conditions; the first is the intact subject. sample_ids: ascending, by measure.
    """

    keys: Sequence[ConditionKey]
    measures: Mapping[str, Measured]
    sample_ids: Mapping[str, np.ndarray]

    def targets(self) -> list[int]:
        """Return the numbers of the groups themselves, without the intact subject."""
        return [number for number, key in enumerate(self.keys) if number and key.draw < 0]

    def random(self, target: int) -> list[int]:
        """Return the numbers of the random sets of a group, by draw."""
        wanted = self.keys[target]
        return [
            number
            for number, key in enumerate(self.keys)
            if key.draw >= 0 and (key.group, key.alpha) == (wanted.group, wanted.alpha)
        ]


def read_results(losses: pa.Table, speech: pa.Table) -> Results:
    """Return the measures of rows of `group_losses` and `group_speech`."""
    keys: dict[ConditionKey, int] = {}
    measures: dict[str, Measured] = {}
    sample_ids: dict[str, np.ndarray] = {}
    loss_rows, speech_rows = losses.to_pylist(), speech.to_pylist()
    for row in (*loss_rows, *speech_rows):
        keys.setdefault(_key(row), len(keys))
    assert not keys or next(iter(keys)).group == INTACT, "the first condition is intact"
    for rows, parts in ((loss_rows, _LOSS_PARTS), (speech_rows, _speech_parts(speech_rows))):
        ids = np.array(sorted({row["sample_id"] for row in rows}), np.int64)
        place = {one: at for at, one in enumerate(ids.tolist())}
        for name, part in parts.items():
            above, below = (np.full((len(keys), len(ids)), np.nan) for _ in range(2))
            for row in rows:
                at = keys[_key(row)], place[row["sample_id"]]
                above[at], below[at] = part(row) if row["status"] == "ok" else (np.nan, np.nan)
            if np.nansum(below):
                measures[name] = Measured(above, below)
                sample_ids[name] = ids
    return Results(list(keys), measures, sample_ids)


def _key(row: _Row) -> ConditionKey:
    name, share, first, last, draw, alpha = (row[one] for one in _KEY)
    return ConditionKey(Group(name, share, first, last), draw, alpha)


def _loss_part(column: str) -> Callable[[_Row], tuple[float, float]]:
    return lambda row: (row[f"{column}_loss"], row[f"{column}_tokens"])


_LOSS_PARTS = {name: _loss_part(column) for name, column in LOSSES.items()}


def _speech_parts(rows: Sequence[_Row]) -> dict[str, Callable[[_Row], tuple[float, float]]]:
    """Return, for each measure of speech, its numerator and denominator in a row."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kind"]))
    true = [kind for kind in kinds if not kind.startswith(SAYS)]
    parts: dict[str, Callable[[_Row], tuple[float, float]]] = {}
    if true:
        parts["right"] = lambda row: _right(row, true)
        parts["wrong_names"] = lambda row: _wrong(row, true)
        parts["recall"] = lambda row: _recall(row, true)
        parts |= {f"right {kind}": _right_of(kind) for kind in true if len(true) > 1}
    parts |= {kind: _says(kind) for kind in kinds if kind.startswith(SAYS)}
    parts["length"] = lambda row: (row["n_words"], 1)
    parts["yes_no_correct"] = lambda row: (row["correct"], row["asked"])
    parts["yes_ratio"] = lambda row: (row["yes"], row["answered"])
    return parts


def _sums(row: _Row, kinds: Sequence[str]) -> tuple[int, int, int]:
    chosen = [at for at, kind in enumerate(row["kind"]) if kind in kinds]
    named, right, present = (
        sum(row[name][at] for at in chosen) for name in ("named", "right", "present")
    )
    return named, right, present


def _right(row: _Row, kinds: Sequence[str]) -> tuple[float, float]:
    named, right, present = _sums(row, kinds)
    return right, named + present - right


def _right_of(kind: str) -> Callable[[_Row], tuple[float, float]]:
    return lambda row: _right(row, [kind])


def _wrong(row: _Row, kinds: Sequence[str]) -> tuple[float, float]:
    named, right, _ = _sums(row, kinds)
    return named - right, named


def _recall(row: _Row, kinds: Sequence[str]) -> tuple[float, float]:
    _, right, present = _sums(row, kinds)
    return right, present


def _says(kind: str) -> Callable[[_Row], tuple[float, float]]:
    return lambda row: (_sums(row, [kind])[0], 1)
