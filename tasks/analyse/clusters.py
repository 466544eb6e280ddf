"""Find the groups of each neuron's exemplars that are meanings of its own.

Spherical k-means, for many neurons at once. Groups count as meanings if they are

- stable: both halves of the exemplars, clustered apart, sort all exemplars alike, over several
  random halves (prediction strength; Tibshirani and Walther 2005);
- unrelated: no two of them point in similar directions;
- more than chance: each one gathers more exemplars than random tokens of the same texts would;
- apart: of any two, one has mostly texts without a word like those at which the other peaks. A
  neuron that fires at "the" and at "small" in every text peaks at one of them by a hair, which is
  no meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

from neuron_atlas.tasks.analyse.settings import AnalyseSettings

_ROUNDS = 5
_MAX_CHANCE = 0.01
"""Largest p-value of a group's size against chance."""
AreApart = Callable[[int, np.ndarray], bool]
"""Returns whether the groups of a neuron are apart, from its number and bool [k, exemplars]."""


def find_clusters(
    vectors: np.ndarray,
    present: np.ndarray,
    chance: np.ndarray,
    settings: AnalyseSettings,
    are_apart: AreApart | None = None,
) -> np.ndarray:
    """Return the meaning of each exemplar, int8 [neurons, exemplars]: 1 to the number of meanings.

    It is 0 for every exemplar of a neuron with one meaning, and where `present` is False. The
    largest number of meanings that holds is taken, and the largest one comes first. vectors:
    float32 [neurons, exemplars, size], of length 1 or 0. present: bool [neurons, exemplars].
    chance: float32 [places, size], vectors of random places. are_apart: None takes all for apart.
    """
    found = np.zeros(present.shape, np.int8)
    similarity = vectors @ vectors.transpose(0, 2, 1)
    for k in range(2, settings.max_meanings + 1):
        labels = _cluster(similarity, present, present, k)
        sizes = np.stack([((labels == one) & present).sum(1) for one in range(k)], axis=1)
        least = np.maximum(settings.min_exemplars, settings.min_meaning_share * present.sum(1))
        (chosen,) = np.nonzero(sizes.min(1) >= least)
        for hold in (_are_unrelated, _are_no_chance, _are_stable):
            if len(chosen):
                its = similarity[chosen], vectors[chosen], present[chosen], labels[chosen]
                chosen = chosen[hold(_Groups(*its, k, chance), settings)]
        if are_apart is not None:
            groups = (labels[:, None] == np.arange(k)[:, None]) & present[:, None]
            apart = [are_apart(number, groups[number]) for number in chosen.tolist()]
            chosen = chosen[np.array(apart, bool)]
        if len(chosen):
            order = np.argsort(np.argsort(-sizes[chosen], axis=1, kind="stable"), axis=1)
            ranked = np.take_along_axis(order, labels[chosen], axis=1) + 1
            found[chosen] = np.where(present[chosen], ranked, 0)
    return found


@dataclass(frozen=True)
class _Groups:
    """Exemplars of some neurons in k groups. Arrays as in find_clusters; similarity: cosines of
    exemplars [neurons, exemplars, exemplars]. labels: the group of each exemplar."""

    similarity: np.ndarray
    vectors: np.ndarray
    present: np.ndarray
    labels: np.ndarray
    k: int
    chance: np.ndarray

    def sums(self) -> np.ndarray:
        """Return the sum of each group's vectors, float32 [neurons, k, size]."""
        is_in = self.labels[..., None] == np.arange(self.k)
        members = (is_in & self.present[..., None]).astype(np.float32)
        return members.transpose(0, 2, 1) @ self.vectors


def _are_unrelated(groups: _Groups, settings: AnalyseSettings) -> np.ndarray:
    """Return whether the centers of all groups have a low cosine, bool [neurons]."""
    centers = _unit(groups.sums())
    cosines = centers @ centers.transpose(0, 2, 1)
    cosines[:, np.arange(groups.k), np.arange(groups.k)] = -1
    return cosines.max((1, 2)) <= settings.max_relation


def _are_no_chance(groups: _Groups, settings: AnalyseSettings) -> np.ndarray:
    """Return whether each group is larger than by chance, bool [neurons].

    Half of a group's exemplars are as close to the center of its other exemplars as their median.
    The binomial test compares their number with the share of random places that are as close.
    """
    vectors, chance, sums = groups.vectors, groups.chance, groups.sums()
    n = groups.present.sum(1)
    holds = np.ones(len(vectors), bool)
    for one in range(groups.k):
        member = (groups.labels == one) & groups.present
        other = _unit(sums[:, one, None] - vectors)
        cosine = np.where(member, (other * vectors).sum(2), np.nan)
        median = np.nanmedian(cosine, axis=1)
        close = (cosine >= median[:, None]).sum(1)
        to_chance = _unit(sums[:, one]) @ chance.T
        share = ((to_chance >= median[:, None]).sum(1) + 1) / (len(chance) + 1)
        # bdtrc(n - 1, N, p) is the probability of n or more.
        holds &= bdtrc(close - 1, n, np.minimum(share, 1)) <= _MAX_CHANCE
    return holds


def _are_stable(groups: _Groups, settings: AnalyseSettings) -> np.ndarray:
    """Return whether the halves agree: mean adjusted Rand index over the splits, bool [neurons]."""
    similarity, present, k = groups.similarity, groups.present, groups.k
    agreement = np.zeros(len(similarity))
    for split in range(settings.splits):
        keys = np.random.default_rng([settings.seed, split]).random(present.shape[1])
        # Ranks among the present exemplars, so that halves are halves for every neuron.
        rank = np.where(present, keys, np.inf).argsort(1, kind="stable").argsort(1, kind="stable")
        halves = [present & (rank % 2 == half) for half in (0, 1)]
        one, other = (_cluster(similarity, present, half, k) for half in halves)
        agreement += _adjusted_rand(one, other, present, k) / settings.splits
    return agreement >= settings.min_agreement


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 1e-6, length, 1)


def _cluster(similarity: np.ndarray, present: np.ndarray, fitted: np.ndarray, k: int) -> np.ndarray:
    """Return the cluster of each exemplar, int64 [neurons, exemplars], from the `fitted` ones."""
    neurons = np.arange(len(similarity))
    # Begin with the most central exemplar, then always the one least like those before.
    central = np.where(fitted, (similarity * fitted[:, None, :]).sum(2), -np.inf).argmax(1)
    nearest = similarity[neurons, central]
    to_centers = [nearest]
    for _ in range(k - 1):
        farthest = np.where(fitted, nearest, np.inf).argmin(1)
        to_centers.append(similarity[neurons, farthest])
        nearest = np.maximum(nearest, to_centers[-1])
    labels = np.stack(to_centers, axis=2).argmax(2)
    for _ in range(_ROUNDS):
        members = ((labels[..., None] == np.arange(k)) & fitted[..., None]).astype(np.float32)
        sums = similarity @ members
        norm = np.sqrt(np.maximum((members * sums).sum(1), 0))
        is_empty = norm <= 1e-6
        cosine = np.where(is_empty[:, None], -np.inf, sums / np.where(is_empty, 1, norm)[:, None])
        new = cosine.argmax(2)
        if np.array_equal(new, labels):
            break
        labels = new
    return labels


def _adjusted_rand(one: np.ndarray, other: np.ndarray, present: np.ndarray, k: int) -> np.ndarray:
    """Return the adjusted Rand index of two clusterings [neurons]; 0 if it is undefined."""
    joint = np.stack(
        [((one == a) & (other == b) & present).sum(1) for a in range(k) for b in range(k)],
        axis=1,
    ).reshape(-1, k, k)

    def pairs(n: np.ndarray) -> np.ndarray:
        return n * (n - 1) / 2

    together = pairs(joint).sum((1, 2))
    rows, columns = pairs(joint.sum(2)).sum(1), pairs(joint.sum(1)).sum(1)
    expected = rows * columns / np.maximum(pairs(present.sum(1)), 1)
    largest = (rows + columns) / 2
    spread = largest - expected
    return np.where(spread > 0, (together - expected) / np.where(spread > 0, spread, 1), 0)
