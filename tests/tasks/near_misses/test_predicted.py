"""The samples that an explanation predicts are those where the concept simulator predicts any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    CONCEPTS,
    DESCRIPTIONS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    write_table,
)
from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.near_misses.predicted import (
    TERM_SAMPLES,
    index_terms,
    predicted_samples,
    read_index,
)
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles, read_image_clusters
from neuron_atlas.tasks.simulate.concept import ConceptSimulator
from neuron_atlas.tasks.simulate.simulator import SimulationRequest
from tests.one_process import Described

NO_CLUSTERS = ImageClusterFiles()
EXPLANATIONS = (
    'Image regions that show "red"; the word "circle" in the text.',
    "Image regions with circles (r = 0.31).",
    'The words "blue" or "square".',
    'Image regions that show "small red circle".',
    "red but not blue things",
    "unicorns",
    "",
)


def simulated(catalog: Catalog, explanation: str) -> list[int]:
    requests = [SimulationRequest(explanation, one) for one in sorted(catalog.samples)]
    found = ConceptSimulator().simulate(requests, catalog, CallOptions())
    return [
        request.sample_id
        for request, one in zip(requests, found, strict=True)
        if max(one.visual.max(initial=0), one.text.max(initial=0)) > 0
    ]


@pytest.fixture(params=["concepts", "texts alone"])
def source(request, scenes: Described, tmp_path: Path) -> tuple[Catalog, Path]:
    """The samples with and without their true concepts; the file of these."""
    if request.param == "concepts":
        return scenes.catalog(), scenes.folder / "concepts.parquet"
    none = tmp_path / "concepts.parquet"
    write_table(CONCEPTS.schema.empty_table(), CONCEPTS, none)
    return replace(scenes.catalog(), truths={}), none


@pytest.mark.parametrize("explanation", EXPLANATIONS)
def test_they_are_those_of_the_concept_simulator(source, scenes, tmp_path, explanation):
    catalog, concepts = source
    table = index_terms(
        EXPLANATIONS, scenes.folder / "descriptions.parquet", [concepts], NO_CLUSTERS
    )
    write_table(table, TERM_SAMPLES, tmp_path / "index.parquet")
    index = read_index([tmp_path / "index.parquet"], [explanation])
    assert predicted_samples(explanation, index).tolist() == simulated(catalog, explanation)


COMPOSED = {
    'Image regions that show "red" (r = 0.50 over 8 samples).': (["red"], []),
    'Strongly: the word "blue" after "large" in the text; weakly: any word before "small" in the '
    "text (r = 0.50 over 8 samples).": ([], [["blue", "large"], ["small"]]),
    'The word "." before "the" in the text (r = 0.99 over 9 samples).': ([], [["the"]]),
}
"""Composed explanations, with the concepts and the words of each term that samples must have."""


@pytest.mark.parametrize("explanation", COMPOSED)
def test_a_composed_explanation_predicts_samples_with_all_names_of_a_term(
    scenes, tmp_path, explanation
):
    concepts, terms = COMPOSED[explanation]
    catalog = scenes.catalog()
    table = index_terms(
        list(COMPOSED),
        scenes.folder / "descriptions.parquet",
        [scenes.folder / "concepts.parquet"],
        NO_CLUSTERS,
    )
    write_table(table, TERM_SAMPLES, tmp_path / "index.parquet")
    index = read_index([tmp_path / "index.parquet"], [explanation])
    expected = set()
    for sample_id, one in catalog.samples.items():
        words = set(words_of(one.text))
        shown = {name for truth in catalog.concepts(sample_id) for name in truth.words}
        if words_hold(words, terms) or shown & set(concepts):
            expected.add(sample_id)
    assert predicted_samples(explanation, index).tolist() == sorted(expected)
    assert set(simulated(catalog, explanation)) <= expected
    assert len(expected) > 0


def words_hold(words: set[str], terms: list[list[str]]) -> bool:
    return any(set(term) <= words for term in terms)


def test_some_explanations_predict_some_samples_and_not_all(scenes):
    counts = {len(simulated(scenes.catalog(), one)) for one in EXPLANATIONS}
    assert len(counts & set(range(1, len(scenes.catalog().samples)))) >= 2


def test_parts_of_the_dataset_give_the_index_of_the_whole(scenes, tmp_path):
    whole = scenes.descriptions
    concepts = [scenes.folder / "concepts.parquet"]
    paths = []
    for name, rows in (("a", whole.slice(0, 10)), ("b", whole.slice(10)), ("all", whole)):
        write_table(rows, DESCRIPTIONS, tmp_path / f"{name}.parquet")
        paths.append(tmp_path / f"index-{name}.parquet")
        table = index_terms(EXPLANATIONS, tmp_path / f"{name}.parquet", concepts, NO_CLUSTERS)
        write_table(table, TERM_SAMPLES, paths[-1])
    parts, together = read_index(paths[:2], EXPLANATIONS), read_index(paths[2:], EXPLANATIONS)
    for one in EXPLANATIONS:
        np.testing.assert_array_equal(
            predicted_samples(one, parts), predicted_samples(one, together)
        )


def test_a_sample_that_is_not_usable_is_never_predicted(scenes, tmp_path):
    rows = scenes.descriptions
    place = rows.schema.get_field_index("status")
    rows = rows.set_column(place, "status", pa.array(["empty_text"] * len(rows)))
    write_table(rows, DESCRIPTIONS, tmp_path / "descriptions.parquet")
    concepts = [scenes.folder / "concepts.parquet"]
    paths = tmp_path / "descriptions.parquet", concepts
    assert len(index_terms(EXPLANATIONS, *paths, NO_CLUSTERS)) == 0


def test_an_explanation_by_image_clusters_predicts_the_samples_that_have_one(scenes, tmp_path):
    none = tmp_path / "concepts.parquet"
    write_table(CONCEPTS.schema.empty_table(), CONCEPTS, none)
    catalog = scenes.catalog()
    names = ["dogs, grass (cluster 0)", "cluster 1", "cluster 11"]
    rows = [
        {"cluster": number, "name": name, "words": [], "n_samples": 1, "share": 0.5}
        for number, name in zip((0, 1, 11), names, strict=True)
    ]
    has = {number: [0, 1, 11][number % 3] for number in catalog.samples}
    clusters = [
        {"sample_id": number, "clusters": [one] * catalog[number].n_visual}
        for number, one in has.items()
    ]
    files = ImageClusterFiles([tmp_path / "clusters.parquet"], [tmp_path / "names.parquet"])
    for path, listed, spec in (
        (files.clusters[0], clusters, IMAGE_CLUSTERS),
        (files.names[0], rows, IMAGE_CLUSTER_NAMES),
    ):
        write_table(pa.Table.from_pylist(listed, schema=spec.schema), spec, path)
    bare = replace(catalog, truths={}, clusters=read_image_clusters(files, catalog.samples))
    for chosen in ([0], [1], [1, 11]):
        quoted = " or ".join(
            f'"{dict(zip((0, 1, 11), names, strict=True))[one]}"' for one in chosen
        )
        text = f"Image regions that show {quoted} (r = 0.50 over 8 samples)."
        table = index_terms([text], scenes.folder / "descriptions.parquet", [none], files)
        write_table(table, TERM_SAMPLES, tmp_path / "index.parquet")
        found = predicted_samples(text, read_index([tmp_path / "index.parquet"], [text]))
        assert found.tolist() == sorted(number for number, one in has.items() if one in chosen)
        assert found.tolist() == simulated(bare, text)
