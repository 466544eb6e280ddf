"""Patches that visual exemplars show, against random patches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from neuron_atlas.tasks.analyse.seen import random_places, read_seen, seen_patches
from neuron_atlas.tasks.artifacts import PEAK_EMBEDDINGS, write_table
from neuron_atlas.tasks.artifacts.places import (
    embeddings_table,
    place_of,
    role_of,
    sample_of,
    token_of,
)

WIDTH = 6


def patches(count: int, first: int = 0) -> np.ndarray:
    """One patch of each of some samples."""
    zeros = np.zeros(count, np.int64)
    return place_of(np.arange(first, first + count), zeros, zeros)


def test_every_patch_of_the_dataset_is_as_likely_and_none_is_drawn_twice():
    ids, n_visual = np.array([3, 5, 9, 11]), np.array([100, 0, 400, 2000])
    drawn = np.concatenate([random_places(ids, n_visual, seed) for seed in range(20)])
    assert len(drawn) == 20_000
    assert all(len(set(random_places(ids, n_visual, seed).tolist())) == 1000 for seed in (0, 1))
    counts = Counter(sample_of(drawn).tolist())
    assert [counts[one] / 20_000 for one in ids.tolist()] == pytest.approx(
        (n_visual / 2500).tolist(), abs=0.02
    )
    assert set(role_of(drawn).tolist()) == {0}
    for one, most in zip(ids.tolist(), n_visual.tolist(), strict=True):
        tokens = token_of(drawn[sample_of(drawn) == one])
        assert tokens.max(initial=-1) == most - 1


def test_a_small_dataset_gives_all_its_patches_and_one_without_images_none():
    assert random_places(np.array([2, 7]), np.array([2, 1]), 0).tolist() == [
        *place_of(np.array([2, 2, 7]), np.zeros(3, np.int64), np.array([0, 1, 0])).tolist()
    ]
    assert len(random_places(np.array([2]), np.array([0]), 0)) == 0


def test_random_patches_have_no_direction_in_common_and_all_vary_alike():
    """One direction has a hundred times the spread of the others, and a far mean."""
    spread = np.array([100.0, 1, 1, 1, 1, 1])
    random = np.random.default_rng(0).standard_normal((1000, WIDTH)) * spread + 7 * spread
    seen = seen_patches(patches(1000), random.astype(np.float32), patches(1000))
    np.testing.assert_allclose(np.linalg.norm(seen.chance, axis=1), 1, atol=1e-5)
    covariance = seen.chance.T @ seen.chance / 1000
    shown = np.linalg.matrix_rank(covariance, tol=1e-3)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[-shown:], 1 / shown, atol=0.03)
    assert np.linalg.norm(seen.chance.mean(0)) < 0.1


def test_what_all_objects_share_does_not_outweigh_their_differences():
    """Nine of ten random patches are background; objects differ from it, and by color."""
    rng = np.random.default_rng(1)
    background, objects, red, blue = np.eye(4, WIDTH) * np.array([[5], [5], [1], [1]])
    noise = 0.05 * rng.standard_normal((1040, WIDTH))
    kinds = [background] * 900 + [objects + red] * 50 + [objects + blue] * 50
    shown = [objects + red] * 20 + [objects + blue] * 20
    embeddings = (np.array(kinds + shown) + noise).astype(np.float32)
    every, chance = patches(1040), patches(1000)
    seen = seen_patches(every, embeddings, chance)
    vectors = seen.at(np.arange(1000, 1040), np.zeros(40, np.int64))
    similar = vectors @ vectors.T
    assert similar[:20, :20].mean() > 0.7
    assert similar[:20, 20:].mean() < 0.3


def test_embeddings_are_read_from_the_files_of_all_parts(tmp_path: Path):
    rng = np.random.default_rng(2)
    every = patches(30)
    embeddings = rng.standard_normal((30, WIDTH)).astype(np.float32)
    paths = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    for path, part in zip(paths, (slice(11), slice(11, None)), strict=True):
        write_table(embeddings_table(every[part], embeddings[part]), PEAK_EMBEDDINGS, path)
    exemplars, chance = every[[2, 15, 16]], every[5:29]
    seen = read_seen(paths, exemplars, chance)
    expected = seen_patches(seen.places, embeddings[[2, *range(5, 29)]], chance)
    assert seen.places.tolist() == np.union1d(exemplars, chance).tolist()
    np.testing.assert_array_equal(seen.vectors, expected.vectors)
    assert len(read_seen([], every[:0], chance).vectors) == len(chance)
