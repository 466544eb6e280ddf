"""Weight each scored sample by the samples of the dataset that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.align import Aligned

EXEMPLAR, NEAR_MISS, REST = range(3)


@dataclass(frozen=True)
class Weighted:
    """Strata of the samples of an `Aligned`.

    stratum: int64 [samples], one of the constants above. weight: float64 [samples], samples of the
    dataset that a sample stands for. is_predicted: bool [samples], whether the explanation predicts
    it. counts: int64 [groups, 3], samples of each stratum.
    """

    stratum: np.ndarray
    weight: np.ndarray
    is_predicted: np.ndarray
    counts: np.ndarray


def weigh(aligned: Aligned, strata: Sequence[Strata | None]) -> Weighted:
    """Return the stratum and weight of each sample: its stratum's size over its scored samples.

    strata: of each explanation; None gives all its samples weight 1. A random sample that the
    explanation predicts belongs to the near misses (post-stratification), so that it does not stand
    for samples that the explanation does not predict. If only one of near misses and rest has
    scored samples, these stand for both.
    """
    ids = np.array([one.sample_id for one in aligned.excitations], np.int64)
    is_predicted = aligned.near_miss.copy()
    stratum = np.where(aligned.exemplar, EXEMPLAR, REST)
    counts = np.zeros((len(strata), 3), np.int64)
    weight = np.ones(len(ids))
    starts = np.searchsorted(aligned.group, np.arange(len(strata) + 1))
    for group, its in enumerate(strata):
        of_group = slice(starts[group], starts[group + 1])
        members = stratum[of_group]
        if its is not None:
            named = np.fromiter(its.predicted_ids, np.int64, len(its.predicted_ids))
            is_predicted[of_group] |= np.isin(ids[of_group], named)
            sizes = np.array(its.sizes, np.float64)
            if sizes[NEAR_MISS]:
                members[(members == REST) & is_predicted[of_group]] = NEAR_MISS
            n = np.bincount(members, minlength=3)
            if sizes[NEAR_MISS] and not (n[NEAR_MISS] and n[REST]):
                members[members == NEAR_MISS] = REST
                sizes[REST] += sizes[NEAR_MISS]
                n = np.bincount(members, minlength=3)
            weight[of_group] = (sizes / np.maximum(n, 1))[members]
        counts[group] = np.bincount(members, minlength=3)
    return Weighted(stratum, weight, is_predicted, counts)
