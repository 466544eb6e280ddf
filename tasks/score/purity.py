"""Measure why an explanation fails: too broad (purity) or too narrow (recall)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.artifacts import CLAIMS, TOKENS
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.align import Aligned
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.strength import predicted_strengths, sample_peaks
from neuron_atlas.tasks.score.weights import Weighted


def purities(
    aligned: Aligned,
    weighted: Weighted,
    strata: Sequence[Strata | None],
    neurons: Sequence[Evidence],
    settings: ScoreSettings,
) -> dict[str, np.ndarray]:
    """Return purity, the purity of a random ranking, and recall [3 tokens, groups] of the own
    claim.

    A sample is positive if it has an active token among those scored. strata, neurons: of each
    explanation. Recall is only over all tokens, because an explanation predicts whole samples; NaN
    if it predicts no sample, or without strata.
    """
    scales = np.array([one.scale if one.scale > 0 else np.inf for one in neurons])
    thresholds = np.array([[settings.t_visual], [settings.t_text]]) / 10 * scales[aligned.group]
    active = sample_peaks((aligned.visual, aligned.text), aligned.offsets) > thresholds
    positive = np.stack([active.any(0), *active])
    strengths = predicted_strengths(aligned, CLAIMS[0])
    found = np.full((3, len(TOKENS), len(neurons)), np.nan)
    starts = np.searchsorted(aligned.group, np.arange(len(neurons) + 1))
    for group, its in enumerate(strata):
        of_group = slice(starts[group], starts[group + 1])
        weight = weighted.weight[of_group]
        for tokens, (strength, is_active) in enumerate(zip(strengths, positive, strict=True)):
            ranked = (strength[of_group], is_active[of_group], weight)
            found[0, tokens, group] = average_precision(*ranked)
            unranked = np.where(np.isnan(ranked[0]), np.nan, 0)
            found[1, tokens, group] = average_precision(unranked, *ranked[1:])
        if its is not None and its.predicted:
            found[2, 0, group] = recall(
                weighted.is_predicted[of_group], positive[0, of_group], weight
            )
    return {"purity": found[0], "random_purity": found[1], "recall": found[2]}


def average_precision(strength: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted average precision of samples ranked by `strength`.

    strength: float [samples], predicted peaks; NaN are ignored. positive: bool [samples]. weight:
    [samples]. AP = sum over thresholds of precision times the gain in recall; samples of equal
    strength share a threshold. A constant strength gives the share of positives. NaN without
    positives.
    """
    has_strength = ~np.isnan(strength)
    strength, positive, weight = (side[has_strength] for side in (strength, positive, weight))
    order = np.argsort(-strength, kind="stable")
    ordered = strength[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(order) else order
    found = np.cumsum((weight * positive)[order])[ends]
    if not len(ends) or found[-1] <= 0:
        return float("nan")
    precision = found / np.cumsum(weight[order])[ends]
    return float(precision @ np.diff(found, prepend=0) / found[-1])


def recall(is_predicted: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted share of the positives that the explanation predicts; NaN without
    positives. is_predicted, positive: bool [samples]. weight: [samples]."""
    total = weight @ positive
    return float(weight @ (positive & is_predicted) / total) if total > 0 else float("nan")
