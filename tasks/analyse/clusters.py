"""Count the clusters of each neuron's exemplars that do not depend on which exemplars are used.

Spherical k-means on similarities alone, for many neurons at once. A number of clusters is stable if
both halves of the exemplars, clustered apart, sort all exemplars alike, over several random halves
(prediction strength; Tibshirani and Walther 2005).
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 5
_SEPARATION = 0.2
"""Least excess of the mean similarity within clusters over that between them."""


def count_clusters(
    similarity: np.ndarray,
    present: np.ndarray,
    most: int,
    min_size: int,
    min_agreement: float,
    splits: int,
    seed: int,
) -> np.ndarray:
    """Return the largest stable number of clusters of each neuron, int64 [neurons]; 1 if none is.

    similarity: float32 [neurons, exemplars, exemplars], cosines. present: bool [neurons,
    exemplars]. most: largest number to try. min_size: least exemplars of a cluster. min_agreement:
    least mean adjusted Rand index of the halves. splits: random halves; seed: of their draw.
    """
    found = np.ones(len(similarity), np.int64)
    for k in range(2, most + 1):
        labels = _cluster(similarity, present, present, k)
        sizes = np.stack([((labels == one) & present).sum(1) for one in range(k)])
        (chosen,) = np.nonzero(
            (sizes.min(0) >= min_size) & (_separation(similarity, present, labels) >= _SEPARATION)
        )
        if not len(chosen):
            continue
        its, here = similarity[chosen], present[chosen]
        agreement = np.zeros(len(chosen))
        for split in range(splits):
            keys = np.random.default_rng([seed, split]).random(present.shape[1])
            # Ranks among the present exemplars, so that halves are halves for every neuron.
            rank = np.where(here, keys, np.inf).argsort(1, kind="stable").argsort(1, kind="stable")
            halves = [here & (rank % 2 == half) for half in (0, 1)]
            one, other = (_cluster(its, here, half, k) for half in halves)
            agreement += _adjusted_rand(one, other, here, k) / splits
        found[chosen[agreement >= min_agreement]] = k
    return found


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


def _separation(similarity: np.ndarray, present: np.ndarray, labels: np.ndarray) -> np.ndarray:
    pairs = present[:, :, None] & present[:, None, :] & ~np.eye(present.shape[1], dtype=bool)
    same = labels[:, :, None] == labels[:, None, :]
    means = []
    for kind in (pairs & same, pairs & ~same):
        n = kind.sum((1, 2))
        means.append(np.where(kind, similarity, 0).sum((1, 2)) / np.maximum(n, 1))
    return means[0] - means[1]


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
