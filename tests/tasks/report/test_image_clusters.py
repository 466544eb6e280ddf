"""Image clusters on the page: those that explanations name, in the images where they cover most."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts import IMAGE_CLUSTER_NAMES, IMAGE_CLUSTERS, write_table
from neuron_atlas.tasks.report.image_clusters import read_shown_clusters
from neuron_atlas.tasks.report.inputs import SampleFiles
from neuron_atlas.tasks.report.palette import heat_colors
from tests.one_process import Described

EXPLANATIONS = (
    'Image regions that show "cluster 1" (r = 0.90 over 8 samples).',
    'Image regions that show "cluster 1" or "dog (cluster 0)"; the word "cluster 2" in the text.',
    "",
)


@pytest.fixture
def tables(scenes: Described, tmp_path: Path) -> dict[str, tuple[Path, ...]]:
    """Of sample n, n patches are of cluster 1, and the others of cluster 0."""
    catalog = scenes.catalog()
    clusters = [
        {"sample_id": number, "clusters": [1] * number + [0] * (sample.n_visual - number)}
        for number, sample in sorted(catalog.samples.items())
    ]
    names = [
        {"cluster": number, "name": name, "words": [], "n_samples": 20, "share": 0.5}
        for number, name in enumerate(("dog (cluster 0)", "cluster 1", "cat (cluster 2)"))
    ]
    half = len(clusters) // 2
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "names.parquet"
    for path, rows, spec in zip(
        paths,
        (clusters[:half], clusters[half:], names),
        (IMAGE_CLUSTERS, IMAGE_CLUSTERS, IMAGE_CLUSTER_NAMES),
        strict=True,
    ):
        write_table(pa.Table.from_pylist(rows, schema=spec.schema), spec, path)
    return {IMAGE_CLUSTERS.name: paths[:2], IMAGE_CLUSTER_NAMES.name: paths[2:]}


@pytest.fixture
def samples(scenes: Described) -> SampleFiles:
    files = ((scenes.folder / f"{name}.parquet",) for name in ("samples", "descriptions"))
    return SampleFiles(*files, scenes.source)


def test_those_that_most_explanations_name_come_first(tables, samples):
    shown = read_shown_clusters(tables, samples, EXPLANATIONS)
    assert [one.name for one in shown] == ["cluster 1", "dog (cluster 0)"]
    assert [one.n_explanations for one in shown] == [2, 1]
    assert [(one.n_samples, one.share) for one in shown] == [(20, 0.5)] * 2


def test_each_is_shown_in_the_samples_where_it_covers_most(tables, samples):
    first, second = read_shown_clusters(tables, samples, EXPLANATIONS)
    assert first.sample_ids == (23, 22, 21, 20)
    assert second.sample_ids == (0, 1, 2, 3)


def test_its_patches_are_marked_and_no_others(tables, samples):
    first, _ = read_shown_clusters(tables, samples, EXPLANATIONS)
    picture = Image.open(io.BytesIO(base64.b64decode(first.heat(23).split(",")[1])))
    colors = np.asarray(picture).reshape(-1, 4)
    is_marked = (colors == heat_colors(np.ones(()))).all(axis=1)
    assert is_marked.tolist() == [number < 23 for number in range(len(colors))]


def test_a_run_without_clusters_shows_none(samples):
    assert read_shown_clusters({}, samples, EXPLANATIONS) == []
