"""Planted neurons of scenes whose source has no concepts: image clusters say what they see.

Without clusters, dissect has the words of the texts for such images; the two neurons then score
below 0.2.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from neuron_atlas.tasks.artifacts import IMAGE_CLUSTER_NAMES, IMAGE_CLUSTERS, write_table
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.image_clusters.assign import assign_clusters
from neuron_atlas.tasks.image_clusters.learn import learn_centers
from neuron_atlas.tasks.image_clusters.name import name_clusters
from neuron_atlas.tasks.image_clusters.settings import ImageClusterSettings
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles, read_image_clusters
from tests.tasks.test_planted import (
    Atlas,
    Captured,
    captured,
    mapped,
    neurons,
    planted,
    planted_folder,
)

__all__ = ["captured", "neurons", "planted", "planted_folder"]

SETTINGS = ImageClusterSettings(samples=200)
COLORS = {"red patches": "red", "green patches": "green"}


@pytest.fixture(scope="module")
def clustered(captured: Captured, neurons: dict[str, int]) -> Atlas:
    folder, catalog, subject = captured
    ids = sorted(catalog.samples)
    centers = learn_centers(subject, ids[: SETTINGS.samples], catalog, SETTINGS, 16)
    files = ImageClusterFiles([folder / "clusters.parquet"], [folder / "names.parquet"])
    assigned = assign_clusters(subject, ids, catalog, centers, 16)
    write_table(assigned, IMAGE_CLUSTERS, files.clusters[0])
    names = name_clusters(len(centers), files.clusters, [folder / "descriptions.parquet"])
    write_table(names, IMAGE_CLUSTER_NAMES, files.names[0])
    patches = read_image_clusters(files, ids)
    bare = replace(catalog, truths={}, clusters=patches)
    return mapped((folder, bare, subject), neurons, Dissect())


@pytest.mark.parametrize("name", COLORS)
def test_a_neuron_that_sees_a_color_is_explained_by_clusters_of_this_color(clustered, name):
    text = clustered.explanations[name]["text"]
    strongest = text.removeprefix("Strongly: ").split("; ")[0]
    quoted = strongest.split('"')[1::2]
    assert quoted
    for cluster in quoted:
        words, _, number = cluster.partition(" (cluster ")
        assert COLORS[name] in words.split(", ")
        assert number


@pytest.mark.parametrize("name", COLORS)
def test_its_score_stands_far_above_the_controls(clustered, name):
    row = clustered.scores[name]
    assert row["correlation"] > 0.8
    assert row["control_blind"] < 0.3
    assert abs(row["control_other"]) < 0.2
    assert row["margin_low"] > 0.4
