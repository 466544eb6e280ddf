"""Clusters of patches: learned, assigned and read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts import (
    IMAGE_CLUSTER_CENTERS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    write_table,
)
from neuron_atlas.tasks.concepts.predict import token_facts
from neuron_atlas.tasks.image_clusters.assign import assign_clusters, nearest_centers
from neuron_atlas.tasks.image_clusters.learn import fit_centers, learn_centers
from neuron_atlas.tasks.image_clusters.patches import read_patches
from neuron_atlas.tasks.image_clusters.settings import ImageClusterSettings
from neuron_atlas.tasks.samples.catalog import open_catalog
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles, read_image_clusters
from neuron_atlas.tasks.search.embed import embed_image
from tests.one_process import Described

SETTINGS = ImageClusterSettings(count=8, samples=24)


@pytest.fixture(scope="module")
def centers(subject, scenes: Described) -> pa.Table:
    catalog = scenes.catalog()
    return learn_centers(subject, sorted(catalog.samples), catalog, SETTINGS, 8)


@pytest.fixture(scope="module")
def assigned(subject, scenes: Described, centers: pa.Table) -> pa.Table:
    catalog = scenes.catalog()
    return assign_clusters(subject, sorted(catalog.samples), catalog, centers, 8)


def planted(sizes: tuple[int, ...]) -> np.ndarray:
    """Groups of patches around far points, mixed."""
    random = np.random.default_rng(3)
    groups = [
        point + 0.05 * random.standard_normal((n, 6))
        for point, n in zip(np.eye(len(sizes), 6), sizes, strict=True)
    ]
    return random.permutation(np.concatenate(groups)).astype(np.float32)


def test_planted_groups_are_found_and_the_largest_comes_first():
    patches = planted((20, 60, 40))
    centers = fit_centers(patches, ImageClusterSettings(count=3))
    np.testing.assert_allclose(centers[:, :3], np.eye(3)[[1, 2, 0]], atol=0.05)
    assert np.bincount(nearest_centers(patches, centers)).tolist() == [60, 40, 20]


def test_there_are_no_more_clusters_than_distinct_patches():
    patches = np.repeat(np.eye(2, 4, dtype=np.float32), 5, axis=0)
    assert len(fit_centers(patches, ImageClusterSettings(count=9))) == 2
    assert len(fit_centers(patches[:0], ImageClusterSettings(count=9))) == 0


def test_another_seed_begins_with_other_centers():
    patches = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
    one, same, other = (
        fit_centers(patches, ImageClusterSettings(count=12, seed=seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_a_patch_belongs_to_the_nearest_center_and_to_the_first_one_of_a_tie():
    centers = np.array([[1, 0], [0, 1], [0, 1], [0.2, 0.2]], np.float32)
    vectors = np.array([[0, 1], [1, 0.1], [0.1, 0.2]], np.float32)
    distances = np.linalg.norm(vectors[:, None] - centers, axis=2)
    assert nearest_centers(vectors, centers).tolist() == distances.argmin(1).tolist() == [1, 0, 3]


def test_patches_are_the_visual_tokens_embeddings_of_length_one(subject, scenes):
    catalog = scenes.catalog()
    found = {}
    read_patches(subject, [4, 9], catalog, found.__setitem__, batch_size=2)
    assert sorted(found) == [4, 9]
    for sample_id, vectors in found.items():
        expected = embed_image(subject, catalog.open_images(sample_id)[0])
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_every_visual_token_has_a_cluster(assigned, scenes):
    catalog = scenes.catalog()
    assert assigned.schema == IMAGE_CLUSTERS.schema
    assert assigned["sample_id"].to_pylist() == sorted(catalog.samples)
    for row in assigned.to_pylist():
        assert len(row["clusters"]) == catalog[row["sample_id"]].n_visual
        assert set(row["clusters"]) <= set(range(SETTINGS.count))


def test_the_batch_size_and_the_parts_change_no_cluster(subject, scenes, centers, assigned):
    catalog = scenes.catalog()
    ids = sorted(catalog.samples)
    again = learn_centers(subject, ids[::-1], catalog, SETTINGS, 3)
    for name in IMAGE_CLUSTER_CENTERS.schema.names:
        values = [np.array(table[name].to_pylist()) for table in (centers, again)]
        np.testing.assert_allclose(*values, atol=1e-5)
    parts = [assign_clusters(subject, part, catalog, centers, 5) for part in (ids[:7], ids[7:])]
    assert pa.concat_tables(parts).equals(assigned)


def test_an_attempt_that_ran_out_of_memory_leaves_no_trace(
    subject, scenes, centers, assigned, monkeypatch
):
    counted: list[int] = []

    def once_too_large(size, attempt, on_batch, *names):
        attempt(size, lambda count: counted.append(count))
        attempt(size // 2, lambda count: counted.append(count))

    monkeypatch.setattr("neuron_atlas.tasks.image_clusters.patches.fit_batch", once_too_large)
    catalog = scenes.catalog()
    again = assign_clusters(subject, sorted(catalog.samples), catalog, centers, 8)
    assert again.equals(assigned)
    assert sum(counted) == 2 * len(catalog.samples)


def test_patches_of_one_color_are_mostly_of_its_clusters(assigned, scenes):
    catalog = scenes.catalog()
    clusters = np.concatenate([np.array(row["clusters"]) for row in assigned.to_pylist()])
    colors = []
    for sample_id in assigned["sample_id"].to_pylist():
        image = catalog.open_images(sample_id)[0]
        side = int(catalog[sample_id].n_visual ** 0.5)
        small = np.asarray(image.resize((side, side), Image.Resampling.BOX))
        colors.append(small.reshape(-1, 3))
    rgb = np.concatenate(colors).astype(float)
    within = sum(
        ((rgb[clusters == one] - rgb[clusters == one].mean(0)) ** 2).sum()
        for one in np.unique(clusters)
    )
    assert within < 0.4 * ((rgb - rgb.mean(0)) ** 2).sum()


def test_a_catalog_has_the_patches_of_each_cluster(scenes, assigned, tmp_path):
    files = ImageClusterFiles([tmp_path / "clusters.parquet"], [tmp_path / "names.parquet"])
    names = pa.Table.from_pylist(
        [
            {"cluster": one, "name": f"cluster {one}", "words": [], "n_samples": 1, "share": 0.1}
            for one in range(SETTINGS.count)
        ],
        schema=IMAGE_CLUSTER_NAMES.schema,
    )
    write_table(assigned, IMAGE_CLUSTERS, files.clusters[0])
    write_table(names, IMAGE_CLUSTER_NAMES, files.names[0])
    paths = [[scenes.folder / f"{name}.parquet"] for name in ("samples", "descriptions")]
    catalog = open_catalog(*paths, clusters=files, sample_ids=[3, 5])
    row = assigned.to_pylist()[3]
    shown = catalog.image_clusters(3)
    assert sorted(shown) == sorted({f"cluster {one}" for one in row["clusters"]})
    for name, held in shown.items():
        assert held.tolist() == [f"cluster {one}" == name for one in row["clusters"]]
    assert set(catalog.clusters) == {3, 5}
    assert open_catalog(*paths).image_clusters(3) == {}
    assert read_image_clusters(ImageClusterFiles(), [3]) == {}


def test_a_cluster_is_shown_next_to_the_words_of_the_text(scenes):
    catalog = scenes.catalog()
    held = np.arange(catalog[3].n_visual) < 5
    bare = replace(catalog, truths={}, clusters={3: {"red (cluster 4)": held}})
    shown = token_facts(bare, [3, 4]).shown
    np.testing.assert_array_equal(shown[0]["red (cluster 4)"], held.astype(np.float32))
    assert set(shown[0]["background"]) == {1}
    assert "red (cluster 4)" not in shown[1]
