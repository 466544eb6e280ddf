"""Pearson's correlation of samples, each a pair of real and predicted activations."""

import numpy as np

from neuron_atlas.tasks.score.correlation import cross_sums, pearson, real_sums

Samples = list[tuple[np.ndarray, np.ndarray]]


def sums_of(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Real and cross sums [3, samples] each."""
    real, predicted = concatenated(samples)
    offsets = np.cumsum([0, *(len(x) for x, _ in samples)])
    return real_sums(real, offsets), cross_sums(real, predicted, offsets)


def concatenated(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    real, predicted = (np.concatenate(side) for side in zip(*samples, strict=True))
    return real, predicted


def correlation(samples: Samples) -> float:
    real, cross = sums_of(samples)
    return float(pearson(real.sum(1), cross.sum(1)))


def drawn(rng: np.random.Generator, samples: int, strength: float = 1.0) -> Samples:
    """Samples of different lengths and levels whose sides correlate."""
    pairs = []
    for _ in range(samples):
        x = rng.normal(rng.normal(), 1, int(rng.integers(1, 40)))
        pairs.append((x.astype(np.float32), (strength * x + rng.normal(size=len(x))) * 3 - 7))
    return pairs
