"""A neuron has a type only if it is shown to fire: noise through an activation function is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import ndtr

from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.classify.firing import firing_p
from neuron_atlas.tasks.classify.tested import FIRING_TESTS, RateRule
from neuron_atlas.tasks.classify.threshold import otsu_bin
from tests.tasks.classify.counted import counted, even, histograms
from tests.tasks.classify.test_tested import typed

NEURONS, SAMPLES, N_VISUAL, N_TEXT = 100, 200, 36, 12


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": silu,
    "gelu": lambda x: x * ndtr(x),
    "relu": lambda x: np.maximum(x, 0),
}


def noise(
    rng: np.random.Generator,
    n_tokens: int,
    mean: float = 0.0,
    deviation: float = 1.0,
    shared: float = 0.0,
) -> np.ndarray:
    """Normal pre-activations [NEURONS, tokens]. shared: the part of the variance that the tokens of
    a sample share."""
    own = rng.normal(size=(NEURONS, SAMPLES * n_tokens))
    of_sample = rng.normal(size=(NEURONS, SAMPLES)).repeat(n_tokens, axis=1)
    return mean + deviation * (np.sqrt(1 - shared) * own + np.sqrt(shared) * of_sample)


def sample_ids(n_tokens: int) -> np.ndarray:
    return np.arange(SAMPLES).repeat(n_tokens)


def table(visual: np.ndarray, text: np.ndarray) -> pa.Table:
    """Histograms of activations at N_VISUAL and N_TEXT tokens of every sample."""
    return histograms(counted(visual, sample_ids(N_VISUAL)), counted(text, sample_ids(N_TEXT)))


def share_typed(rows: list[dict]) -> float:
    return np.mean([row["type_tested"] in ("visual", "text", "multi-modal") for row in rows])


def kinds(table: pa.Table, folder: Path) -> list[str]:
    return [row["type_tested"] for row in typed(table, folder)]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shared", [0.0, 0.3])
@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (0, 0.3), (0, 3), (-1, 1), (-2, 1)])
def test_at_most_one_noise_neuron_in_twenty_is_typed(function, shared, mean, deviation, tmp_path):
    rng = np.random.default_rng([1, abs(mean), int(10 * deviation), int(10 * shared)])
    visual, text = (
        FUNCTIONS[function](noise(rng, n, mean, deviation, shared)) for n in (N_VISUAL, N_TEXT)
    )
    assert share_typed(typed(table(visual, text), tmp_path)) <= 0.05


def test_noise_that_is_a_little_wider_in_one_role_is_not_typed(tmp_path):
    rng = np.random.default_rng(2)
    rows = typed(table(silu(noise(rng, N_VISUAL)), silu(noise(rng, N_TEXT, 0, 1.2))), tmp_path)
    assert share_typed(rows) <= 0.05


def test_without_a_factor_noise_is_typed(tmp_path):
    """The activation function alone bends the line: a factor of 1 shows nothing."""
    rng = np.random.default_rng(3)
    rows = typed(
        table(silu(noise(rng, N_VISUAL)), silu(noise(rng, N_TEXT))),
        tmp_path,
        RateRule(noise_factor=1.0),
    )
    assert share_typed(rows) > 0.5


@pytest.mark.parametrize("mean", [0, -1, -2])
@pytest.mark.parametrize(
    ("rates", "kind"), [((0.05, 0), "visual"), ((0, 0.1), "text"), ((0.05, 0.1), "multi-modal")]
)
def test_a_neuron_that_fires_over_noise_is_typed_by_where_it_fires(mean, rates, kind, tmp_path):
    rng = np.random.default_rng([4, -mean])
    sides = []
    for n_tokens, rate in zip((N_VISUAL, N_TEXT), rates, strict=True):
        before = noise(rng, n_tokens, mean)
        fires = rng.random(before.shape) < rate
        sides.append(silu(np.where(fires, 6 + rng.normal(size=before.shape), before)))
    found = kinds(table(*sides), tmp_path)
    assert found.count(kind) >= 0.95 * NEURONS


def test_noise_in_one_role_does_not_make_a_neuron_multi_modal(tmp_path):
    """Its text is as high as its threshold often enough for both roles; but that is noise."""
    rng = np.random.default_rng(5)
    visual = noise(rng, N_VISUAL)
    visual[rng.random(visual.shape) < 0.03] = 3
    rows = typed(table(silu(visual), silu(noise(rng, N_TEXT, 0.3))), tmp_path)
    assert sum(row["q_both"] <= 0.05 for row in rows) > 0.9 * NEURONS
    assert not [row for row in rows if row["type_tested"] == "multi-modal"]


def test_a_role_that_is_on_at_every_token_fires_next_to_one_that_is_not(tmp_path):
    """Within the role there is nothing to compare with: over both roles there is."""
    rng = np.random.default_rng(6)
    rows = typed(table(silu(noise(rng, N_VISUAL, -1, 0.5)), silu(noise(rng, N_TEXT, 6))), tmp_path)
    assert {row["type_tested"] for row in rows} == {"text"}
    assert min(row["q_fires_text"] for row in rows) > 0.05 > max(row["q_fires"] for row in rows)


def test_a_cluster_of_high_tokens_fires_however_few_values_it_has(tmp_path):
    (row,) = typed(even([(50, 1000, 5, 100)]), tmp_path)
    smallest = 8 / 2**BLOCKS  # Two departures at four places.
    assert [row[f"p_{name}"] for name in FIRING_TESTS] == [smallest] * 3


def test_with_few_high_tokens_nothing_is_shown():
    counts = np.zeros((2, BLOCKS, BINS), int)
    counts[:, :, 0] = 1000
    counts[0, :, 20] = 1
    counts[1, :, 20] = 2
    p = firing_p(counts, otsu_bin(counts.sum(1)), 1.5)
    assert p[0] == 1 > 0.01 > p[1]


def test_chunks_of_neurons_are_tested_alike(monkeypatch):
    rng = np.random.default_rng(7)
    counts = counted(silu(noise(rng, N_VISUAL, -2, 2)), sample_ids(N_VISUAL))
    first = otsu_bin(counts.sum(1))
    whole = firing_p(counts, first, 1.1)
    monkeypatch.setattr("neuron_atlas.tasks.classify.firing._CHUNK_NEURONS", 7)
    np.testing.assert_array_equal(firing_p(counts, first, 1.1), whole)
    assert (whole < 1).sum() > 0
