"""Measures and counts of explanations as rows of `scores`, each with its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SCORES, TOKENS
from neuron_atlas.tasks.score.align import GROUP
from neuron_atlas.tasks.score.settings import ScoreSettings


@dataclass(frozen=True)
class Counted:
    """What scores rest on: [groups], or by tokens [3, groups]; a group is one explanation.

    samples, exemplars: held out; other: those that the other claim is predicted on. unpaired:
    [exemplars and random ones, groups], those that have a prediction and do not count, for want of
    samples of the other kind. left_out: bool [visual and text, groups], whether the simulator says
    nothing of tokens that are there.
    """

    samples: np.ndarray
    exemplars: np.ndarray
    other: np.ndarray
    unpaired: np.ndarray
    calibration: np.ndarray
    tokens: np.ndarray
    real_varies: np.ndarray
    prediction_varies: np.ndarray
    left_out: np.ndarray


def outcomes(
    groups: pl.DataFrame,
    types: Sequence[str],
    rows: pl.DataFrame,
    measures: Mapping[str, np.ndarray],
    counted: Counted,
    settings: ScoreSettings,
) -> pa.Table:
    """`scores` rows, three for each explanation; what is undefined is null and says why.

    groups: the explanations' names; rows: of `simulations`, for the reasons. measures: [3, groups]
    each, by column; they stand only where the correlation does.
    """
    stated = _statuses(rows, measures, counted, settings)
    undefined = _rows(~np.isin(stated["status"], ("ok", "no_control")))
    columns: dict[str, np.ndarray] = {}
    for name, values in measures.items():
        if name == "n_active":
            columns[name] = _rows(values).astype(np.int64)
        elif name.startswith("control_"):  # A control has a figure of its own without the score.
            columns[name] = _rows(values)
        else:
            columns[name] = np.where(undefined, np.nan, _rows(values))
    without_control = _rows(stated["status"] == "no_control")
    for name in ("margin", "margin_low", "margin_high"):
        columns[name] = np.where(without_control, np.nan, columns[name])
    columns |= {name: _rows(values) for name, values in stated.items()}
    columns |= {name: groups[name].to_numpy().repeat(len(TOKENS)) for name in GROUP}
    columns |= {
        "type": np.repeat(np.array(types, dtype=object), len(TOKENS)),
        "tokens": np.tile(np.array(TOKENS, dtype=object), len(types)),
        "n_samples": counted.samples.repeat(len(TOKENS)),
        "n_exemplars": counted.exemplars.repeat(len(TOKENS)),
        "n_calibration": counted.calibration.repeat(len(TOKENS)),
        "n_tokens": _rows(counted.tokens),
        "p": np.full(len(types) * len(TOKENS), np.nan),
        "q": np.full(len(types) * len(TOKENS), np.nan),
    }
    arrays = [pa.array(columns[field.name], from_pandas=True) for field in SCORES.schema]
    return pa.Table.from_arrays(arrays, SCORES.schema.names).cast(SCORES.schema)


def _rows(by_tokens: np.ndarray) -> np.ndarray:
    """[3, groups] in the order of the rows: a group's three together."""
    return by_tokens.T.ravel()


def _statuses(
    rows: pl.DataFrame,
    measures: Mapping[str, np.ndarray],
    counted: Counted,
    settings: ScoreSettings,
) -> dict[str, np.ndarray]:
    status = np.full(counted.tokens.shape, "ok", dtype=object)
    reason = np.full(counted.tokens.shape, "", dtype=object)
    own, other = (_first_failure(rows, claim) for claim in ("own", "other"))
    mixes = _mixes(counted)
    for group, mix in mixes.items():
        reason[:, group] = mix
    for where, remark in _remarks(measures, counted):
        reason[where] = [f"{said}; {remark}" if said else remark for said in reason[where]]
    # Of several statuses the last one stands, and so of reasons.
    for group in np.flatnonzero(counted.other == 0).tolist():
        _, why = other.get(group, ("", "no other explanation was simulated"))
        status[:, group], reason[:, group] = "no_control", why
    for side, flat in (
        ("real activations do", ~counted.real_varies),
        ("prediction does", ~counted.prediction_varies),
    ):
        status[flat] = "no_variance"
        reason[flat] = f"the {side} not vary over the held-out samples"
    for place in np.argwhere(counted.tokens < settings.min_tokens).tolist():
        number = counted.tokens[*place]
        status[*place] = "too_few_tokens"
        reason[*place] = f"{number} tokens, score.min_tokens is {settings.min_tokens}"
    for role, left_out in enumerate(counted.left_out, start=1):
        status[role, left_out] = "not_predicted"
        reason[role, left_out] = f"the simulator says nothing of {TOKENS[role]} tokens"
    for group in np.flatnonzero(counted.samples < settings.min_samples).tolist():
        number = counted.samples[group]
        least = f"score.min_samples is {settings.min_samples}"
        what, why = "too_few_samples", f"{number} held-out samples with a prediction, {least}"
        if not number and group in own:
            cause, why = own[group]
            what = cause if cause == "no_explanation" else what
        if group in mixes:
            why = f"{why}; {mixes[group]}"
        status[:, group], reason[:, group] = what, why
    return {"status": status, "reason": reason}


def _mixes(counted: Counted) -> dict[int, str]:
    """What an explanation has of exemplars and random samples, where not all of them count."""
    random = counted.samples - counted.exemplars
    exemplars, others = np.stack([counted.exemplars, random]) + counted.unpaired
    return {
        group: f"{exemplars[group]} exemplars and {others[group]} random samples have a prediction,"
        f" {random[group]} of each count"
        for group in np.flatnonzero(counted.unpaired.sum(0)).tolist()
    }


def _remarks(
    measures: Mapping[str, np.ndarray], counted: Counted
) -> Iterator[tuple[np.ndarray, str]]:
    """What scores are without, and why, each with the scores bool [3, groups] of which it is so."""
    for role, left_out in enumerate(counted.left_out, start=1):
        over_all = np.zeros(counted.tokens.shape, dtype=bool)
        over_all[0] = left_out
        yield over_all, f"without {TOKENS[role]} tokens, of which the simulator says nothing"
    missing = {name: np.isnan(values) for name, values in measures.items()}
    yield missing["control_other"], "the control's prediction does not vary"
    yield missing["auroc"] & (measures["n_active"] == 0), "no auroc: no token is active"
    yield missing["auroc"] & (measures["n_active"] > 0), "no auroc: all tokens are active"
    uncalibrated, unexplained = counted.calibration == 0, missing["explained_variance"]
    yield uncalibrated & unexplained, "no explained variance: no calibration sample is predicted"
    yield (
        ~uncalibrated & unexplained,
        "no explained variance: over the calibration samples the prediction does not vary",
    )
    no_auc, no_accuracy = missing["detection_auc"], missing["balanced_accuracy"]
    yield no_auc, "no detection: no exemplar, or no random sample, has such tokens"
    yield (
        ~no_auc & no_accuracy,
        "no balanced accuracy: no exemplar, or no random sample, to find a threshold by",
    )


def _first_failure(rows: pl.DataFrame, claim: str) -> dict[int, tuple[str, str]]:
    """Status and reason of a claim that failed on some sample, the first by explanation."""
    wrong = rows.filter(pl.col("claim") == claim, pl.col("status") != "ok")
    first = wrong.group_by("group", maintain_order=True).first()
    return {
        group: (status, reason)
        for group, status, reason in first.select("group", "status", "reason").rows()
    }
