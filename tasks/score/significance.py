"""Select neurons whose explanation beats its controls, at a false discovery rate q."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SCORES, read_table, write_table
from neuron_atlas.tasks.statistics import false_discovery

_FAMILY = ["explainer", "simulator", "tokens"]
_DECIMALS = 12


def contest(own: np.ndarray, other: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """By how much own beats other, [neurons]: max(own, floor) - max(other, floor).

    floor: the higher of the controls without an explanation, NaN where there is none; 0, the
    correlation of whoever says nothing, is always one of them. Above 0 the contest is the margin
    over the highest control; below 0 it is the margin that the other neuron's explanation would
    have had in own's place. NaN where own or other is undefined.
    """
    floor = np.fmax(floor, 0)
    unknown = np.isnan(own) | np.isnan(other)
    won = np.maximum(own, floor) - np.maximum(other, floor)
    return np.where(unknown, np.nan, won)


def p_values(won: np.ndarray) -> np.ndarray:
    """Chance [neurons] that a shuffled explanation wins its contest by as much.

    Swapping own and other turns a contest's sign and nothing else. So where an explanation is no
    better for its neuron than another neuron's, wins and losses of every size are equally likely,
    and the losses show how often chance wins: p = (1 + losses as large) / contests for a win, and 1
    for what is none. Nothing is assumed of tokens or of the simulator, but that contests are
    independent of each other, which those of neurons that share samples, or lend each other their
    explanations, are only nearly. With Benjamini and Hochberg's step this is the knockoff+ filter
    (Barber and Candes 2015, "Controlling the false discovery rate via knockoffs"), elsewhere
    target-decoy competition. Fewer than 1/q contests can call none.
    """
    known = np.sort(-won[np.isfinite(won)])
    losses = len(known) - np.searchsorted(known, won, side="left")
    p = np.minimum((1 + losses) / max(1, len(known)), 1)
    # Who did not win is never called, however few losses there are.
    return np.where(np.isfinite(won), np.where(won > 0, p, 1), np.nan)


def q_values(p: np.ndarray) -> np.ndarray:
    """Return the Benjamini-Hochberg q-values [neurons], to 12 decimals; NaN stays NaN.

    p-values from counts often meet a level exactly. Without rounding, such a neuron could miss the
    level by a floating-point error.
    """
    return np.round(false_discovery.q_values(p), _DECIMALS)


def judge(scores: pa.Table) -> pa.Table:
    """`scores` with p and q filled in, among all neurons of an explainer, simulator and tokens."""
    frame = pl.DataFrame(scores.select([*_FAMILY, *_CORRELATIONS]))
    own, other, empty, blind = (
        frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in _CORRELATIONS
    )
    won = contest(own, other, np.fmax(empty, blind))
    p, q = np.full((2, len(frame)), np.nan)
    for rows in frame.with_row_index("row").group_by(_FAMILY).agg("row")["row"]:
        family = rows.to_numpy()
        p[family] = p_values(won[family])
        q[family] = q_values(p[family])
    for name, values in (("p", p), ("q", q)):
        place = scores.schema.get_field_index(name)
        scores = scores.set_column(
            place, SCORES.schema.field(name), pa.array(values, from_pandas=True)
        )
    return scores


def judge_files(paths: Sequence[Path]) -> pa.Table:
    """Fill p and q into the files of `scores`, which were written apart; all of them together.

    Nothing else changes, so it may be done again after it was interrupted.
    """
    tables = [read_table(path, SCORES) for path in paths]
    judged = judge(pa.concat_tables([*tables, SCORES.schema.empty_table()]))
    start = 0
    for path, table in zip(paths, tables, strict=True):
        write_table(judged.slice(start, len(table)), SCORES, path)
        start += len(table)
    return judged


_CORRELATIONS = ("correlation", "control_other", "control_empty", "control_blind")
