"""Convert measures and counts of explanations to rows of `scores`, with status and reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import LEVELS, SCORES, TOKENS
from neuron_atlas.tasks.score.align import GROUP
from neuron_atlas.tasks.score.settings import ScoreSettings


@dataclass(frozen=True)
class ScoreCounts:
    """Counts behind the scores, [groups] or by tokens [3, groups]; a group is one explanation.

    samples, exemplars, near_misses: held-out samples that count, and drawn near misses among them.
    other: those with a prediction of the other claim. unpaired: [exemplars and random samples,
    groups], samples with a prediction that do not count because there are fewer of the other kind.
    calibration: calibration samples. tokens: [3, groups]. real_varies, prediction_varies: bool [3,
    groups]. left_out: bool [visual and text, groups], whether the simulator does not predict a
    role's tokens. predicts_nothing: bool [groups], whether the explanation predicts no sample of
    the dataset.
    """

    samples: np.ndarray
    exemplars: np.ndarray
    near_misses: np.ndarray
    other: np.ndarray
    unpaired: np.ndarray
    calibration: np.ndarray
    tokens: np.ndarray
    real_varies: np.ndarray
    prediction_varies: np.ndarray
    left_out: np.ndarray
    predicts_nothing: np.ndarray

    @property
    def pairs(self) -> np.ndarray:
        """Exemplars and random samples that count, [groups]."""
        return self.samples - self.near_misses


def score_rows(
    groups: pl.DataFrame,
    types: Sequence[str],
    rows: pl.DataFrame,
    measures: Mapping[str, np.ndarray],
    counts: ScoreCounts,
    settings: ScoreSettings,
    claims: Mapping[str, Sequence[str | None]],
) -> pa.Table:
    """Return `scores` rows, three for each explanation. Undefined values are null, with a reason.

    groups: key columns of the explanations. types: of their neurons. rows: of `simulations`, for
    the reasons. measures: [3, groups] each, by column; all but n_active and the controls are null
    unless the status is ok or no_control. claims: words of each of LEVELS, by explanation.
    """
    statuses = _statuses(rows, measures, counts, settings)
    undefined = _rows(~np.isin(statuses["status"], ("ok", "no_control")))
    columns: dict[str, np.ndarray] = {}
    for name, values in measures.items():
        if name == "n_active":
            columns[name] = _rows(values).astype(np.int64)
        elif name.startswith("control_"):  # Controls keep their values without a score.
            columns[name] = _rows(values)
        else:
            columns[name] = np.where(undefined, np.nan, _rows(values))
    without_control = _rows(statuses["status"] == "no_control")
    for name in ("margin", "margin_low", "margin_high", "p_paired"):
        columns[name] = np.where(without_control, np.nan, columns[name])
    columns |= {name: _rows(values) for name, values in statuses.items()}
    columns |= {name: groups[name].to_numpy().repeat(len(TOKENS)) for name in GROUP}
    columns |= {
        "type": np.repeat(np.array(types, dtype=object), len(TOKENS)),
        "tokens": np.tile(np.array(TOKENS, dtype=object), len(types)),
        "n_samples": counts.samples.repeat(len(TOKENS)),
        "n_exemplars": counts.exemplars.repeat(len(TOKENS)),
        "n_near_misses": counts.near_misses.repeat(len(TOKENS)),
        "n_calibration": counts.calibration.repeat(len(TOKENS)),
        "n_tokens": _rows(counts.tokens),
        **{name: np.full(len(types) * len(TOKENS), np.nan) for name in _OVER_ALL_NEURONS},
    }
    for name, words in claims.items():
        columns[f"{name}_claim"] = np.repeat(np.array(words, dtype=object), len(TOKENS))
    arrays = [pa.array(columns[field.name], from_pandas=True) for field in SCORES.schema]
    return pa.Table.from_arrays(arrays, SCORES.schema.names).cast(SCORES.schema)


_OVER_ALL_NEURONS = ("p_contest", "p", "q", *(f"q_{name}" for name in LEVELS))


def _rows(by_tokens: np.ndarray) -> np.ndarray:
    """Flatten [3, groups] to the order of rows: the three of each group together."""
    return by_tokens.T.ravel()


def _statuses(
    rows: pl.DataFrame,
    measures: Mapping[str, np.ndarray],
    counts: ScoreCounts,
    settings: ScoreSettings,
) -> dict[str, np.ndarray]:
    status = np.full(counts.tokens.shape, "ok", dtype=object)
    reason = np.full(counts.tokens.shape, "", dtype=object)
    own, other = (_first_failure(rows, claim) for claim in ("own", "other"))
    imbalances = _imbalances(counts)
    for group, imbalance in imbalances.items():
        reason[:, group] = imbalance
    for where, remark in _remarks(rows, measures, counts):
        reason[where] = [f"{before}; {remark}" if before else remark for before in reason[where]]
    # The last of several statuses wins, with its reason.
    for group in np.flatnonzero(counts.other == 0).tolist():
        _, why = other.get(group, ("", "no other explanation was simulated"))
        status[:, group], reason[:, group] = "no_control", why
    for side, is_constant in (
        ("real activations do", ~counts.real_varies),
        ("prediction does", ~counts.prediction_varies),
    ):
        status[is_constant] = "no_variance"
        reason[is_constant] = f"the {side} not vary over the held-out samples"
    for cell in np.argwhere(counts.tokens < settings.min_tokens).tolist():
        number = counts.tokens[*cell]
        status[*cell] = "too_few_tokens"
        reason[*cell] = f"{number} tokens, score.min_tokens is {settings.min_tokens}"
    for role, left_out in enumerate(counts.left_out, start=1):
        status[role, left_out] = "not_predicted"
        reason[role, left_out] = f"the simulator does not predict {TOKENS[role]} tokens"
    for group in np.flatnonzero(counts.pairs < settings.min_samples).tolist():
        number = counts.pairs[group]
        limit = f"score.min_samples is {settings.min_samples}"
        result, why = "too_few_samples", f"{number} held-out samples with a prediction, {limit}"
        if not number and group in own:
            cause, why = own[group]
            result = cause if cause == "no_explanation" else result
        if group in imbalances:
            why = f"{why}; {imbalances[group]}"
        status[:, group], reason[:, group] = result, why
    return {"status": status, "reason": reason}


def _imbalances(counts: ScoreCounts) -> dict[int, str]:
    """Describe, by group, the exemplars and random samples if not all of them count."""
    random = counts.pairs - counts.exemplars
    exemplars, others = np.stack([counts.exemplars, random]) + counts.unpaired
    return {
        group: f"{exemplars[group]} exemplars and {others[group]} random samples have a prediction,"
        f" {random[group]} of each count"
        for group in np.flatnonzero(counts.unpaired.sum(0)).tolist()
    }


def _remarks(
    rows: pl.DataFrame, measures: Mapping[str, np.ndarray], counts: ScoreCounts
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield remarks on missing parts of scores. bool [3, groups]: the scores that lack the part."""
    for role, left_out in enumerate(counts.left_out, start=1):
        over_all = np.zeros(counts.tokens.shape, dtype=bool)
        over_all[0] = left_out
        yield over_all, f"without {TOKENS[role]} tokens, which the simulator does not predict"
    missing = {name: np.isnan(values) for name, values in measures.items()}
    yield missing["control_other"], "the control's prediction does not vary"
    for name in LEVELS:
        for group, why in _first_failure(rows, name).items():
            of_group = np.zeros(counts.tokens.shape, dtype=bool)
            of_group[:, group] = True
            yield of_group, f"no {name} claim: {why[1]}"
    yield missing["auroc"] & (measures["n_active"] == 0), "no auroc: no token is active"
    yield missing["auroc"] & (measures["n_active"] > 0), "no auroc: all tokens are active"
    uncalibrated, unexplained = counts.calibration == 0, missing["explained_variance"]
    yield uncalibrated & unexplained, "no explained variance: no calibration sample is predicted"
    yield (
        ~uncalibrated & unexplained,
        "no explained variance: the prediction does not vary over the calibration samples",
    )
    over_all = np.zeros(counts.tokens.shape, dtype=bool)
    over_all[0] = counts.predicts_nothing
    yield over_all, "no recall: the explanation predicts no sample"
    no_auc, no_accuracy = missing["detection_auroc"], missing["balanced_accuracy"]
    yield no_auc, "no detection: no exemplar, or no random sample, has such tokens"
    yield (
        ~no_auc & no_accuracy,
        "no balanced accuracy: no exemplar, or no random sample, to fit a threshold on",
    )


def _first_failure(rows: pl.DataFrame, claim: str) -> dict[int, tuple[str, str]]:
    """Return, by group, status and reason of the first sample on which a claim failed."""
    failed = rows.filter(pl.col("explanation") == claim, pl.col("status") != "ok")
    first = failed.group_by("group", maintain_order=True).first()
    return {
        group: (status, reason)
        for group, status, reason in first.select("group", "status", "reason").rows()
    }
