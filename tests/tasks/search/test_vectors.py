"""Vectors, clarity and neighbors of neurons whose exemplars are planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import (
    NEIGHBORS,
    PEAK_EMBEDDINGS,
    PEAK_PLACES,
    SEARCH_CENTERS,
    SEARCH_VECTORS,
    exemplars_spec,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.places import (
    embeddings_table,
    place_of,
    places_table,
    read_places,
    role_of,
    sample_of,
    token_of,
)
from neuron_atlas.tasks.concepts.presence import patch_coverage
from neuron_atlas.tasks.search.embed import embed_image, embed_words
from neuron_atlas.tasks.search.neighbors import nearest, neighbors_of_layer, read_vectors
from neuron_atlas.tasks.search.peaks import all_places, read_peaks
from neuron_atlas.tasks.search.vectors import center_of, centers_of, search_vectors, unit_rows
from neuron_atlas.tasks.subject.embed_places import embed_places
from neuron_atlas.tasks.subject.embeddings import project
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from tests.tasks.exemplars import exemplar_table

RED_A, RED_B, SOME, WORD, WORDS = range(5)
"""Planted neurons: red patches of some samples, of other samples, any patches, one word,
and any words."""


@pytest.fixture(scope="module")
def made(subject, scenes, tmp_path_factory) -> Path:
    """All tables of the stage, of one layer with the planted neurons."""
    folder = tmp_path_factory.mktemp("search")
    catalog = scenes.catalog()
    random = np.random.default_rng(0)
    seen: dict[int, list] = {neuron: [] for neuron in range(5)}
    for sample_id, sample in sorted(catalog.samples.items()):
        silent = np.zeros(sample.n_visual), np.zeros(len(sample.tokens))
        for concept in catalog.concepts(sample_id):
            if concept.name == "red":
                red = patch_coverage(concept, sample)
                fewer = min(RED_A, RED_B, key=lambda neuron: len(seen[neuron]))
                seen[fewer].append((sample_id, red, silent[1]))
        one = np.zeros(sample.n_visual)
        one[random.integers(sample.n_visual)] = 1
        seen[SOME].append((sample_id, one, silent[1]))
        said = np.array([float(token.strip() == "background") for token in sample.tokens])
        seen[WORD].append((sample_id, silent[0], said))
        seen[WORDS].append((sample_id, silent[0], random.permutation(len(said)) == 0))
    assert min(len(seen[RED_A]), len(seen[RED_B])) >= 2
    exemplars = folder / "exemplars-layer-003.parquet"
    table = exemplar_table(seen, layer=3)
    write_table(table, exemplars_spec(len(catalog.samples)), exemplars)
    places = all_places([exemplars], 20)
    embeddings = embed_places(subject, places, catalog, 8)
    half = len(places) // 2
    files = [folder / "a.arrow", folder / "b.arrow"]
    for path, part in zip(files, (slice(half), slice(half, None)), strict=True):
        write_table(embeddings_table(places[part], embeddings[part]), PEAK_EMBEDDINGS, path)
    centers = centers_of(files)
    write_table(centers, SEARCH_CENTERS, folder / "centers.parquet")
    peaks = read_peaks(exemplars, 20)
    vectors = folder / "search_vectors-layer-003.parquet"
    write_table(search_vectors(3, peaks, files, centers), SEARCH_VECTORS, vectors)
    write_table(neighbors_of_layer(3, [vectors], 2), NEIGHBORS, folder / "neighbors.parquet")
    return folder


@pytest.fixture(scope="module")
def rows(made) -> dict[int, dict]:
    table = read_table(made / "search_vectors-layer-003.parquet", SEARCH_VECTORS)
    return {row["neuron"]: row for row in table.to_pylist()}


def test_each_neuron_has_a_vector_of_the_role_in_which_it_peaks(rows):
    assert {neuron: row["role"] for neuron, row in rows.items()} == {
        RED_A: "visual",
        RED_B: "visual",
        SOME: "visual",
        WORD: "text",
        WORDS: "text",
    }
    assert rows[SOME]["n"] == 20


def test_neurons_of_one_concept_are_clear_and_each_others_neighbors(made, rows):
    assert rows[RED_A]["clarity"] > rows[SOME]["clarity"] + 0.2
    assert rows[RED_B]["clarity"] > rows[SOME]["clarity"] + 0.2
    assert rows[WORD]["clarity"] == pytest.approx(1, abs=1e-2)
    near = {
        row["neuron"]: row for row in read_table(made / "neighbors.parquet", NEIGHBORS).to_pylist()
    }
    assert near[RED_A]["neurons"] == [RED_B, SOME]
    assert near[RED_B]["neurons"] == [RED_A, SOME]
    assert near[RED_A]["layers"] == [3, 3]
    assert near[RED_A]["redundancy"] == near[RED_A]["cosines"][0] > near[SOME]["redundancy"]
    assert rows[WORDS]["clarity"] < 0.5
    assert near[WORD]["neurons"] == [WORDS]  # Only vectors of one role are compared.


def test_clarity_is_the_mean_cosine_of_pairs(made, subject, scenes, rows):
    peaks = read_peaks(made / "exemplars-layer-003.parquet", 20)
    mine = np.unique(peaks.places[peaks.neuron == RED_A])
    center = center_of(read_table(made / "centers.parquet", SEARCH_CENTERS), "visual")
    units = unit_rows(embed_places(subject, mine, scenes.catalog(), 1) - center)
    cosines = (units @ units.T)[~np.eye(len(units), dtype=bool)]
    assert rows[RED_A]["clarity"] == pytest.approx(cosines.mean(), abs=1e-4)
    np.testing.assert_allclose(rows[RED_A]["vector"], units.mean(0), atol=1e-3)


def test_an_image_and_a_word_find_the_neurons_that_were_planted_for_them(made, subject, scenes):
    centers = read_table(made / "centers.parquet", SEARCH_CENTERS)
    catalog = scenes.catalog()
    reds = [
        sample_id
        for sample_id in catalog.samples
        if any(one.name == "red" for one in catalog.concepts(sample_id))
    ]
    (image,) = catalog.open_images(reds[0])
    units = unit_rows(embed_image(subject, image) - center_of(centers, "visual"))
    _, neurons, vectors = read_vectors([made / "search_vectors-layer-003.parquet"], "visual")
    match = dict(zip(neurons.tolist(), (vectors @ units.T).max(1), strict=True))
    assert min(match[RED_A], match[RED_B]) > 0.5
    _, texts, text = read_vectors([made / "search_vectors-layer-003.parquet"], "text")
    right, wrong = (
        unit_rows(embed_words(subject, word) - center_of(centers, "text")).mean(0)
        for word in ("background", "triangle")
    )
    assert texts.tolist() == [WORD, WORDS]
    assert (text @ right)[0] > 0.99 > max((text @ right)[1], (text @ wrong)[0])


def test_embeddings_are_those_of_the_subject_at_these_tokens(subject, scenes):
    catalog = scenes.catalog()
    sample = catalog[2]
    encoded = encode(subject, catalog.open_images(2), sample.text)
    places = place_of(np.array([2, 2, 2]), np.array([VISUAL, VISUAL, TEXT]), np.array([0, 5, 3]))
    found = embed_places(subject, places, catalog, 4)
    features = subject.model.model.get_image_features(encoded.inputs["pixel_values"]).pooler_output
    np.testing.assert_allclose(found[:2], features[0][[0, 5]].detach(), rtol=1e-4, atol=1e-5)
    word = encoded.input_ids[encoded.roles == TEXT][3]
    np.testing.assert_array_equal(
        found[2], subject.model.get_input_embeddings().weight[word].detach()
    )


def test_a_wide_embedding_is_projected_and_keeps_its_cosines():
    import torch

    drawn = torch.from_numpy(np.random.default_rng(1).standard_normal((40, 4096)))
    drawn[1] = drawn[0] + 0.5 * drawn[1]
    units = unit_rows(project(drawn))
    assert units.shape == (40, 256)
    exact = unit_rows(drawn.numpy())
    assert np.abs(units @ units.T - exact @ exact.T).max() < 0.3
    assert units[0] @ units[1] == pytest.approx(exact[0] @ exact[1], abs=0.1)


def test_blocks_change_no_neighbor():
    units = unit_rows(np.random.default_rng(2).standard_normal((50, 16)))
    own = np.arange(50)
    rows, cosines = nearest(units, units, 3, own=own)
    products = units @ units.T
    np.fill_diagonal(products, -2)
    np.testing.assert_array_equal(rows[:, 0], products.argmax(1))
    again, same = nearest(units, units, 3, own=own, block=120)
    np.testing.assert_array_equal(rows, again)
    np.testing.assert_allclose(cosines, same, rtol=1e-6)


def test_a_neuron_alone_has_no_neighbor(made, tmp_path):
    table = read_table(made / "search_vectors-layer-003.parquet", SEARCH_VECTORS, neurons=[WORD])
    write_table(table, SEARCH_VECTORS, tmp_path / "search_vectors-layer-003.parquet")
    (row,) = neighbors_of_layer(3, list(tmp_path.iterdir()), 5).to_pylist()
    assert (row["neurons"], row["redundancy"]) == ([], None)


def test_places_hold_sample_role_and_token_and_are_read_by_sample(tmp_path):
    places = place_of(np.array([9, 4, 4]), np.array([0, 1, 0]), np.array([7, 2**29, 3]))
    assert sample_of(places).tolist() == [9, 4, 4]
    assert role_of(places).tolist() == [0, 1, 0]
    assert token_of(places).tolist() == [7, 2**29, 3]
    write_table(places_table(np.sort(places)), PEAK_PLACES, tmp_path / "one.arrow")
    found = read_places([tmp_path / "one.arrow"], np.array([3, 4, 8]))
    assert found.tolist() == sorted(places[1:])
