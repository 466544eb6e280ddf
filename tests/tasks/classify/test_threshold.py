from itertools import pairwise

import numpy as np

from neuron_atlas.tasks.artifacts.histogram import BINS, bin_edges
from neuron_atlas.tasks.classify.threshold import otsu_bin, quantile_bin

EDGES = bin_edges()


def counts_of(activations: np.ndarray) -> np.ndarray:
    """Token counts [1, BINS] of activations."""
    bins = np.searchsorted(EDGES[1:], activations, side="right")
    return np.bincount(bins, minlength=BINS)[None]


def directly(counts: np.ndarray) -> int:
    """Otsu's cut by trying each on one value a token, the middle of its bin."""
    middles = [0.0, *((low + high) / 2 for low, high in pairwise(EDGES[1:]))]
    values = np.repeat([*middles, EDGES[-1]], counts[0])
    within = []
    for edge in EDGES[1:]:
        low, high = values[values < edge], values[values >= edge]
        within.append(len(low) * low.var() if len(low) else 0.0)
        within[-1] += len(high) * high.var() if len(high) else 0.0
    return int(np.argmin(np.round(within, 9))) + 1


def test_otsus_cut_leaves_the_least_variance_within_the_two_classes():
    rng = np.random.default_rng(1)
    for _ in range(40):
        quiet = rng.exponential(rng.uniform(0.02, 0.5), 300) - 0.1
        loud = rng.normal(rng.uniform(1, 30), 1, rng.integers(1, 200))
        counts = counts_of(np.concatenate([quiet, loud]))
        assert otsu_bin(counts) == directly(counts)


def test_otsus_cut_lies_between_a_background_and_what_stands_out_of_it():
    counts = counts_of(np.repeat([-0.2, 0.05, 4.0], [5000, 900, 60]))
    edge = EDGES[otsu_bin(counts)[0]]
    assert 0.05 < edge <= 4.0


def test_every_neuron_has_its_own_cut():
    rows = [counts_of(np.repeat([0.01, at], [100, 10])) for at in (0.5, 8.0, 100.0)]
    together = otsu_bin(np.concatenate(rows))
    assert together.tolist() == [otsu_bin(row)[0] for row in rows]
    assert len(set(together.tolist())) == 1  # Lowest cut between the two, the same for all three.
    spread = [counts_of(np.repeat([at / 4, at / 2, at], [900, 90, 10])) for at in (1.0, 64.0)]
    assert otsu_bin(spread[0])[0] < otsu_bin(spread[1])[0]


def test_a_neuron_that_is_never_active_has_no_high_token():
    counts = counts_of(np.full(50, -3.0))
    for first in (otsu_bin(counts)[0], quantile_bin(counts, 0.5)[0]):
        assert counts[0, first:].sum() == 0


def test_a_neuron_that_is_always_active_alike_has_only_high_tokens():
    counts = counts_of(np.full(50, 3.0))
    assert counts[0, otsu_bin(counts)[0] :].sum() == 50


def test_a_quantile_leaves_at_least_that_share_below():
    counts = counts_of(np.random.default_rng(2).exponential(1, 10_000))
    for quantile in (0.5, 0.9, 0.95, 0.999):
        first = quantile_bin(counts, quantile)[0]
        assert counts[0, :first].sum() >= quantile * 10_000
        assert counts[0, : first - 1].sum() < quantile * 10_000


def test_a_quantile_that_nothing_is_above_takes_the_last_bin():
    assert quantile_bin(counts_of(np.full(10, 1e6)), 0.9) == BINS - 1
