"""Quantiles of peaks in planted distributions."""

from __future__ import annotations

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.probe.quantiles import chance, quantiles_of


def histogram(activations: np.ndarray) -> np.ndarray:
    """What capture would count: spread over the blocks, by bin."""
    bins = np.clip(np.searchsorted(bin_edges(), activations, side="right") - 1, 0, BINS - 1)
    counts = np.zeros((BLOCKS, BINS), np.int32)
    np.add.at(counts, (np.arange(len(bins)) % BLOCKS, bins), 1)
    return counts.reshape(1, -1)


@pytest.fixture(scope="module")
def planted() -> np.ndarray:
    return np.random.default_rng(4).gamma(0.7, 1.5, 20_000) - 0.1


@pytest.mark.parametrize("percent", [60, 90, 99, 99.9])
def test_a_quantile_is_recovered_and_inside_its_bounds(planted, percent):
    peak = np.quantile(planted, percent / 100)
    found = quantiles_of(np.array([peak]), histogram(planted), np.array([planted.max()]))
    assert found.low[0] <= percent / 100 <= found.high[0] + 1e-4
    assert found.low[0] <= found.quantile[0] <= found.high[0]
    # Half octaves are interpolated; the density falls by less than this over one of them.
    assert found.quantile[0] == pytest.approx(percent / 100, abs=0.25 * (1 - percent / 100) + 0.01)


def test_bounds_are_exact_shares_of_tokens(planted):
    peak, edges = 3.3, bin_edges()
    low, high = edges[edges <= peak].max(), edges[edges > peak].min()
    found = quantiles_of(np.array([peak]), histogram(planted), np.array([planted.max()]))
    assert found.low[0] == pytest.approx((planted < low).mean())
    assert found.high[0] == pytest.approx((planted < high).mean())


@pytest.mark.parametrize("above", [0.0, 2.0])
def test_a_peak_that_no_token_exceeds_has_quantile_one(planted, above):
    peak = np.array([planted.max() + above])
    found = quantiles_of(peak, histogram(planted), np.array([planted.max()]))
    assert (found.quantile, found.low, found.high) == (1, 1, 1)


def test_silent_neurons_and_roles_without_tokens_have_no_quantile(planted):
    counts = np.concatenate([histogram(planted), np.zeros_like(histogram(planted))])
    found = quantiles_of(np.array([0.001, 5.0]), counts, np.array([planted.max(), np.nan]))
    assert np.isnan(found.quantile).all()
    assert np.isnan(found.low).all()


def test_a_neuron_that_was_silent_over_the_dataset_and_fires_now_exceeds_all_of_it():
    quiet = np.full(500, -0.2)
    found = quantiles_of(np.array([0.5]), histogram(quiet), np.array([-0.2]))
    assert found.quantile == 1


def test_chance_grows_with_the_number_of_tokens():
    assert chance(np.array([0.99]), 1)[0] == pytest.approx(0.01)
    assert chance(np.array([0.99]), 64)[0] == pytest.approx(1 - 0.99**64)
    assert chance(np.array([1.0]), 64)[0] == 0
    assert np.isnan(chance(np.array([np.nan]), 64)[0])
