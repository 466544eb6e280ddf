"""Words that find neurons, by planted explanations and texts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from neuron_atlas.tasks.artifacts import exemplars_spec, write_table
from neuron_atlas.tasks.search.match_words import match_explanations, match_texts, query_words
from tests.tasks.exemplars import exemplar_table


def test_stop_words_do_not_count_unless_there_are_no_others():
    assert query_words("A red Circle, at the top-left") == ["red", "circle", "top-left"]
    assert query_words("the") == ["the"]
    assert query_words(" ,. ") == []


def found(*texts: str, words: list[str]) -> list[float]:
    frame = pl.LazyFrame(
        {
            "layer": [1] * len(texts),
            "neuron": range(len(texts)),
            "text": texts,
            "status": ["ok"] * len(texts),
        }
    )
    return match_explanations(frame, words).sort("neuron")["match"].to_list()


def test_an_explanation_matches_by_its_whole_words_and_rare_ones_weigh_more():
    both, rare, common, part = found(
        'The word "Red" and circles, a circle.',
        "Any circle",
        "red things",
        "reddish encircled",
        words=["red", "circle"],
    )
    assert (both, part) == (1, 0)
    assert rare == common == 0.5
    rare, common, *_ = found("a circle", "red", "red", "red", words=["red", "circle"])
    assert rare > 0.5 > common


def test_a_quote_or_a_regular_expression_in_a_query_is_text():
    assert found("a (b", words=["(b"]) == [1]
    assert found("abc", words=["a.c"]) == [0]


@pytest.fixture(scope="module")
def exemplars(tmp_path_factory):
    """Neuron 0 peaks on samples 0 to 3, neuron 1 on 4 to 7, neuron 2 on all of them."""
    seen = {
        neuron: [(sample, [1.0], [0.5]) for sample in samples]
        for neuron, samples in enumerate((range(4), range(4, 8), range(8)))
    }
    path = tmp_path_factory.mktemp("texts") / "exemplars-layer-002.parquet"
    write_table(exemplar_table(seen, layer=2), exemplars_spec(8), path)
    return path


def matches(exemplars, words: list[str], *texts: str) -> list[float]:
    frame = pl.LazyFrame({"sample_id": range(len(texts)), "words": [one.split() for one in texts]})
    rows = match_texts(frame, [exemplars], words).sort("neuron")
    assert rows["layer"].to_list() == [2, 2, 2]
    return rows["match"].to_list()


def test_neurons_are_found_by_the_texts_of_their_exemplars_without_explanations(exemplars):
    texts = ["a red circle"] * 4 + ["a blue square"] * 4
    assert matches(exemplars, ["red", "circle"], *texts) == pytest.approx([1, -1, 0])


def test_words_next_to_each_other_count_before_words_anywhere(exemplars):
    apart = "a circle on red"
    texts = ["a red circle"] * 4 + [apart] * 4
    assert matches(exemplars, ["red", "circle"], *texts) == pytest.approx([1, -1, 0])
    assert matches(exemplars, ["red", "circle"], *[apart] * 4, *["a"] * 4)[0] == pytest.approx(1)


def test_a_word_of_all_texts_or_of_none_finds_nothing(exemplars):
    for word in ("a", "zebra"):
        assert np.max(matches(exemplars, [word], *["a red circle"] * 8)) <= 0
