"""Select neurons whose explanation beats its controls, at a false discovery rate q."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import LEVELS, SCORES, read_table, write_table
from neuron_atlas.tasks.statistics import false_discovery

_FAMILY = ["explainer", "simulator", "tokens"]
_DECIMALS = 12


def winning_margin(own: np.ndarray, other: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return by how much own beats other, [neurons]: max(own, floor) - max(other, floor).

    own, other: correlations with the neuron's own and with another neuron's explanation. floor: the
    higher of the controls without an explanation, NaN if there is none; it counts as at least 0,
    the correlation of an uninformative prediction. A positive result is the margin over the highest
    control. A negative one is minus the margin that other would have if it were own. NaN if own or
    other is undefined.
    """
    floor = np.fmax(floor, 0)
    unknown = np.isnan(own) | np.isnan(other)
    won = np.maximum(own, floor) - np.maximum(other, floor)
    return np.where(unknown, np.nan, won)


def contest_p(won: np.ndarray) -> np.ndarray:
    """Return the probability [neurons] that a shuffled explanation wins its contest by as much.

    Swapping own and other only flips the sign of a contest. So if an explanation is no better for
    its neuron than another neuron's, wins and losses of every size are equally likely. The losses
    then show how often chance wins. For a win, p = (1 + losses as large) / contests; otherwise
    p = 1. NaN contests are not counted and stay NaN.

    The test assumes nothing about tokens or the simulator, only that contests are independent.
    Neurons that share samples or serve as each other's controls are only nearly so. With the
    Benjamini-Hochberg step this is the knockoff+ filter (Barber and Candes 2015, "Controlling the
    false discovery rate via knockoffs"), also known as target-decoy competition. With fewer than
    1/q contests no neuron can be significant.
    """
    losses = np.sort(-won[np.isfinite(won)])
    n_as_large = len(losses) - np.searchsorted(losses, won, side="left")
    p = np.minimum((1 + n_as_large) / max(1, len(losses)), 1)
    # A neuron that did not win is never significant, however few losses there are.
    return np.where(np.isfinite(won), np.where(won > 0, p, 1), np.nan)


def rounded_q_values(p: np.ndarray) -> np.ndarray:
    """Return the Benjamini-Hochberg q-values [neurons], to 12 decimals; NaN stays NaN.

    p-values from counts often meet a level exactly. Without rounding, such a neuron could miss the
    level by a floating-point error.
    """
    return np.round(false_discovery.q_values(p), _DECIMALS)


def add_significance(scores: pa.Table) -> pa.Table:
    """Return `scores` with p_contest, p and all q, for each explainer, simulator and kind of tokens
    apart.

    A neuron must win twice: over samples, against every control and 0 (`p_paired`), and over
    neurons, against the explanations of others (`p_contest`). p is the larger p-value, which is
    valid if either null hypothesis holds. The first asks whether the margin would hold on other
    samples. The second asks whether a wrong explanation would do as well: two wrong ones are rarely
    equally wrong, so with enough samples the better of them would win the first.
    """
    frame = pl.DataFrame(
        scores.select([*_FAMILY, *_CORRELATIONS, "p_paired", *(f"p_{name}" for name in LEVELS)])
    )
    own, other, empty, blind, paired = (
        frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in (*_CORRELATIONS, "p_paired")
    )
    won = winning_margin(own, other, np.fmax(empty, blind))
    of_levels = {
        f"q_{name}": frame[f"p_{name}"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in LEVELS
    }
    contest, p, q = np.full((3, len(frame)), np.nan)
    q_of_levels = {name: np.full(len(frame), np.nan) for name in of_levels}
    for rows in frame.with_row_index("row").group_by(_FAMILY).agg("row")["row"]:
        family = rows.to_numpy()
        contest[family] = contest_p(won[family])
        p[family] = np.maximum(contest[family], paired[family])
        q[family] = rounded_q_values(p[family])
        for name, its_p in of_levels.items():
            q_of_levels[name][family] = rounded_q_values(its_p[family])
    for name, values in (("p_contest", contest), ("p", p), ("q", q), *q_of_levels.items()):
        column = scores.schema.get_field_index(name)
        scores = scores.set_column(
            column, SCORES.schema.field(name), pa.array(values, from_pandas=True)
        )
    return scores


def add_significance_to_files(paths: Sequence[Path]) -> pa.Table:
    """Fill in p_contest, p and all q over all files of `scores` together; return their table.

    Nothing else in the files changes, so it may run again after an interruption.
    """
    tables = [read_table(path, SCORES) for path in paths]
    judged = add_significance(pa.concat_tables([*tables, SCORES.schema.empty_table()]))
    start = 0
    for path, table in zip(paths, tables, strict=True):
        write_table(judged.slice(start, len(table)), SCORES, path)
        start += len(table)
    return judged


_CORRELATIONS = ("correlation", "control_other", "control_empty", "control_blind")
