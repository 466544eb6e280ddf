"""Vectors by a CLIP-like model: planted embeddings, and a small CLIP of the real classes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts import (
    PEAK_EMBEDDINGS,
    SEARCH_CENTERS,
    SEARCH_VECTORS,
    exemplars_spec,
    write_table,
)
from neuron_atlas.tasks.artifacts.places import embeddings_table
from neuron_atlas.tasks.concepts.presence import patch_coverage
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.search.crops import crop_box, embed_surroundings, words_at
from neuron_atlas.tasks.search.encoder import load_encoder
from neuron_atlas.tasks.search.errors import SearchError
from neuron_atlas.tasks.search.find_clip import match_words, open_clip
from neuron_atlas.tasks.search.peaks import all_places, read_peaks
from neuron_atlas.tasks.search.settings import SearchSettings
from neuron_atlas.tasks.search.vectors import centers_of, search_vectors, unit_rows
from tests import small_clip
from tests.tasks.exemplars import exemplar_table

COLORS = {"red": (220, 38, 38), "green": (22, 163, 74), "blue": (37, 99, 235)}
SEES_RED, SEES_BLUE, SAYS_GREEN, SAYS_ANY = range(4)


class Planted:
    """Embeds an image as how much of it has each color, and a text as the colors that it names;
    images and texts are apart, as in a real CLIP."""

    width = len(COLORS) + 2

    def embed_images(self, images):
        rows = []
        for image in images:
            pixels = np.asarray(image).reshape(-1, 3).astype(float)
            near = [(np.abs(pixels - color).max(1) < 40).mean() for color in COLORS.values()]
            rows.append([*near, 0.3, 0.0])
        return unit_rows(np.array(rows))

    def embed_texts(self, texts):
        rows = [[float(color in text.split()) for color in COLORS] for text in texts]
        return unit_rows(np.array([[*row, 0.0, 2.0] for row in rows]))


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> SimpleNamespace:
    """A run of one layer with planted neurons, whose vectors are of the planted model."""
    folder = tmp_path_factory.mktemp("clip")
    catalog = scenes.catalog()
    seen: dict[int, list] = {neuron: [] for neuron in range(4)}
    random = np.random.default_rng(0)
    for sample_id, sample in sorted(catalog.samples.items()):
        nowhere, silent = np.zeros(sample.n_visual), np.zeros(len(sample.tokens))
        for concept in catalog.concepts(sample_id):
            if concept.name in ("red", "blue"):
                which = SEES_RED if concept.name == "red" else SEES_BLUE
                seen[which].append((sample_id, patch_coverage(concept, sample), silent))
        words = [token.strip() for token in sample.tokens]
        if "green" in words:
            said = np.array([float(word == "green") for word in words])
            seen[SAYS_GREEN].append((sample_id, nowhere, said))
        seen[SAYS_ANY].append((sample_id, nowhere, random.permutation(len(words)) == 0))
    assert all(len(some) >= 2 for some in seen.values())
    files = {name: folder / f"{name}-layer-003.parquet" for name in ("exemplars", "search_vectors")}
    table = exemplar_table(seen, layer=3)
    write_table(table, exemplars_spec(len(catalog.samples)), files["exemplars"])
    places = all_places([files["exemplars"]], 20)
    embeddings = embed_surroundings(Planted(), places, catalog, 4)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    whole = folder / "peaks.arrow"
    write_table(embeddings_table(places, embeddings), PEAK_EMBEDDINGS, whole)
    files["search_centers"] = folder / "centers.parquet"
    centers = centers_of([whole])
    write_table(centers, SEARCH_CENTERS, files["search_centers"])
    vectors = search_vectors(3, read_peaks(files["exemplars"], 20), [whole], centers)
    write_table(vectors, SEARCH_VECTORS, files["search_vectors"])
    return SimpleNamespace(name="planted", paths=lambda name: [files[name]])


def best(run: SimpleNamespace, words: str, role: str | None = None) -> int:
    found = match_words(run, Planted().embed_texts([words]), role)
    return int(found.sort("match", descending=True)["neuron"][0])


def test_words_find_the_neurons_that_see_or_say_them(run):
    assert best(run, "a red circle", "visual") == SEES_RED
    assert best(run, "blue things", "visual") == SEES_BLUE
    assert best(run, "something green", "text") == best(run, "green", "text") == SAYS_GREEN
    # Of two neurons a role, the better one always has a match of 1.
    found = match_words(run, Planted().embed_texts(["something green"]), None)
    assert set(found.filter(pl.col("match") > 0.99)["neuron"]) == {SEES_BLUE, SAYS_GREEN}
    assert match_words(run, Planted().embed_texts(["red"]), None).height == 4


def test_a_crop_is_around_the_token_and_inside_the_image():
    assert crop_box(np.array([0, 0, 10, 10]), 300, 150) == (0, 0, 50, 50)
    left, top, right, bottom = crop_box(np.array([140, 70, 150, 80]), 300, 150)
    assert (right - left, bottom - top) == (50, 50)
    assert left <= 145 - 10 < 145 + 10 <= right
    assert crop_box(np.array([290, 140, 320, 170]), 300, 150) == (250, 100, 300, 150)
    assert crop_box(np.array([0, 0, 90, 90]), 90, 90) == (0, 0, 90, 90)
    near = {crop_box(np.array([at, 50, at + 4, 54]), 128, 128) for at in (49, 52, 55, 58)}
    assert len(near) == 1


def test_words_of_a_peak_end_with_its_whole_word():
    tokens = ["There", " is", " a", " small", " red", " rect", "angle", " at", " the", " left", "."]
    assert words_at(tokens, 5) == "There is a small red rectangle"
    assert words_at(tokens, 0) == "There"
    assert words_at(tokens, 9) == "small red rectangle at the left"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_clip.build(tmp_path_factory.mktemp("small-clip"))


def test_a_clip_embeds_images_and_texts_alike_in_any_batch(folder):
    encoder = load_encoder(str(folder), threads=1)
    assert encoder.width == small_clip.WIDTH
    images = [Image.new("RGB", (40, 60), color) for color in COLORS.values()]
    together = encoder.embed_images(images)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(encoder.embed_images(images[1:2])[0], together[1], atol=1e-5)
    texts = ["a red circle", "the word", "a green square in the image regions " * 9]
    together = encoder.embed_texts(texts)
    np.testing.assert_allclose(encoder.embed_texts(texts[:1])[0], together[0], atol=1e-5)
    assert np.linalg.norm(together[0] - together[1]) > 0.01


def test_a_search_refuses_other_weights_than_the_runs(folder, tmp_path):
    weights = SearchSettings(model=str(folder)).weights()
    run = SimpleNamespace(
        parameter=lambda stage, name: {"weights": weights},
        stage_manifest=lambda stage: {"about": {"model": str(folder)}},
    )
    assert open_clip(run, device="cpu").width == small_clip.WIDTH
    other = small_clip.build(tmp_path / "other", seed=1)
    with pytest.raises(SearchError, match="is another model than the run's"):
        open_clip(run, str(other), "cpu")


def test_what_is_no_clip_is_refused_before_a_run_starts(folder, tmp_path):
    SearchSettings(model=str(folder)).check()
    SearchSettings().check()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    wrong = re.escape("is a 'vit' model; name one of the kind 'clip' or 'siglip' or 'siglip2'")
    for check in (SearchSettings(model=str(tmp_path)).check, lambda: load_encoder(str(tmp_path))):
        with pytest.raises(ModelError, match=wrong):
            check()
    with pytest.raises(ModelError, match=r"search\.model: there is no folder"):
        SearchSettings(model="/nowhere/clip").check()
