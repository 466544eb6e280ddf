"""Neurons of a finished run, found by words, by another neuron and by an image."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest

from neuron_atlas.tasks.atlas import Atlas, NeuronNotFoundError
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.search.errors import SearchError
from tests import small_clip
from tests.workflows.runs import small_run


@pytest.fixture(scope="module")
def opened(first_run) -> Atlas:
    return Atlas.open(first_run.store.out)


def test_every_neuron_that_fires_has_vectors_and_neighbors(opened):
    vectors = opened.search_vectors.collect()
    fires = opened.types.filter(pl.col("scale") > 0).select("layer", "neuron").collect()
    assert fires.join(vectors, on=["layer", "neuron"], how="anti").height == 0
    assert vectors["clarity"].drop_nulls().is_between(-1, 1).all()
    near = opened.neighbors.collect()
    assert near.height == vectors.height
    assert (near["cosines"].list.len() == 10).all()
    assert set(opened.run.artifacts) >= {"search_centers", "search_vectors", "neighbors"}
    assert not list((opened.run.out / "artifacts" / "search").rglob("peak_*"))


def test_the_nearest_neighbor_is_the_same_by_search_and_by_the_table(opened):
    neuron = opened.neuron(1, 5)
    role = neuron.neighbors["role"][0]
    stored = neuron.neighbors.filter(role=role)
    found = opened.search(like=(1, 5), role=role, count=2000)
    joined = stored.join(found, on=["layer", "neuron"])
    assert joined.height == 10
    np.testing.assert_allclose(joined["match"], joined["cosine"], atol=2e-3)
    np.testing.assert_allclose(found["match"][:10], stored["cosine"], atol=2e-3)
    assert found["match"].is_sorted(descending=True)
    assert (1, 5) not in found.select("layer", "neuron").rows()


def test_words_find_explained_and_unexplained_neurons(opened):
    by_words = opened.search("a red circle", by="texts", count=5)
    has = pl.col("words").list.join(" ").str.contains("red circle")
    holding = opened.words.filter(has).collect()["sample_id"].to_list()
    ids = {
        (row["layer"], row["neuron"]): row["sample_id"]
        for row in opened.exemplars.select("layer", "neuron", "sample_id").collect().to_dicts()
    }
    shares = {key: np.isin(value, holding).mean() for key, value in ids.items()}
    best = by_words.select("layer", "neuron").row(0)
    assert shares[best] == max(shares.values())
    explained = opened.search("large", by="explanations")
    assert explained["explanation"].str.contains("large").all()
    both = opened.search("large", count=2000)
    assert {"explanations", "texts"} <= set(both.columns)
    assert both["explanation"].null_count() > 0
    assert both["match"].is_sorted(descending=True)


def test_an_image_and_tokens_find_neurons_by_the_subjects_embeddings(opened):
    visual = opened.search_vectors.filter(pl.col("role") == "visual", pl.col("n") > 5).collect()
    neuron = opened.neuron(*visual.sort("clarity").select("layer", "neuron").row(-1))
    image = next(one for one in neuron.exemplars if one.peak_role == 0).image
    found = opened.search(image=image, count=2000, device="cpu")
    match = found.filter(layer=neuron.layer, neuron=neuron.index)["match"][0]
    assert match > found["match"].mean()
    words = opened.search("circle", by="tokens", count=3, device="cpu")
    assert words["match"][0] > 0.5


def test_clarity_and_redundancy_are_summarized_by_layer_and_type(opened):
    table = opened.clarity()
    whole = table.filter(layer=-1, type="all", measure="redundancy", role="visual")
    near = opened.neighbors.filter(pl.col("role") == "visual").collect()["redundancy"]
    assert whole["mean"].item() == pytest.approx(near.mean())
    assert whole["n"].item() == near.count()
    parts = table.filter(pl.col("layer") >= 0, type="all", measure="clarity", role="text")
    total = table.filter(layer=-1, type="all", measure="clarity", role="text")
    assert parts["n"].sum() == total["n"].item()


@pytest.mark.slow
def test_a_run_with_a_clip_model_searches_images_by_words(first_run, tmp_path):
    clip = small_clip.build(tmp_path / "clip")
    out = tmp_path / "out"
    shutil.copytree(first_run.store.out, out)
    small_run(out, f"search.model={clip}")
    opened = Atlas.open(out)
    vectors = opened.search_vectors.collect()
    assert set(vectors["vector"].list.len()) == {small_clip.WIDTH}
    assert set(vectors["role"]) == {"visual", "text"}
    before = Atlas.open(first_run.store.out).search_vectors.collect()
    assert vectors.select("layer", "neuron", "role", "n").equals(
        before.select("layer", "neuron", "role", "n")
    )
    found = opened.search("a red circle", by="clip", count=2000, device="cpu")
    assert found.height > 100
    assert found["match"].is_sorted(descending=True)
    joined = opened.search("a red circle", count=50, device="cpu")
    assert {"clip", "texts", "explanations"} <= set(joined.columns)
    image = next(one for one in opened.neuron(1, 5).exemplars).image
    assert opened.search(image=image, device="cpu").height == 20
    with pytest.raises(SearchError, match='search by="clip"'):
        opened.search("red", by="tokens")
    shutil.rmtree(clip)
    with pytest.raises(ModelError, match="there is no folder"):
        opened.search("red", by="clip")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, SearchError, "give one of words"),
        ({"words": "red", "like": (1, 1)}, SearchError, "give one of words"),
        ({"words": " ... "}, SearchError, r"there is no word in ' \.\.\. '"),
        (
            {"words": "red", "by": "vibes"},
            SearchError,
            "choose explanations, texts, tokens or clip",
        ),
        ({"words": "red", "by": "clip"}, SearchError, r"has no CLIP model; set search\.model"),
        ({"words": "red", "role": "template"}, SearchError, "choose visual or text"),
        ({"like": (1, 512)}, NeuronNotFoundError, "neuron 512 of layer 1"),
        ({"like": (1, 5), "role": "template"}, SearchError, "peaks in the template"),
        ({"image": "missing.png"}, ProbeError, "is not a file"),
    ],
)
def test_what_cannot_be_searched_is_refused(opened, arguments, error, said):
    with pytest.raises(error, match=said):
        opened.search(**arguments)
