"""The benchmark's usual way estimates what the tests compute, and its tables are true ones."""

from __future__ import annotations

import numpy as np

from bench.types import N_TEXT, N_VISUAL, shuffled_p, synthetic_histograms
from neuron_atlas.tasks.artifacts import HISTOGRAMS
from neuron_atlas.tasks.classify.exchange import exchange_p


def test_shuffling_estimates_the_exact_p() -> None:
    rng = np.random.default_rng(1)
    high_visual, high_text = np.arange(300) < 30, np.arange(80) < 13
    counts = (np.array([count]) for count in (30, 300, 13, 80))
    (p,) = exchange_p(*counts)
    estimate = shuffled_p(high_visual, high_text, 4000, rng)
    assert 0.02 < p < 0.5
    assert abs(estimate - p) < 4 * np.sqrt(p * (1 - p) / 4000)


def test_the_made_up_histograms_hold_all_tokens() -> None:
    table = synthetic_histograms(3, 5)
    assert table.schema.equals(HISTOGRAMS.schema)
    for role, tokens in (("visual", N_VISUAL), ("text", N_TEXT)):
        counts = table[role].combine_chunks().flatten().to_numpy().reshape(5, -1)
        assert (counts >= 0).all()
        np.testing.assert_allclose(counts.sum(1), tokens, rtol=1e-4)
