from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from neuron_atlas.tasks.analyse.responses import responses
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import build_lexicon, list_words
from neuron_atlas.tasks.artifacts import MOMENTS, RESPONSES, WORDS
from tests.tasks.analyse.patches import patches_of
from tests.tasks.exemplars import exemplar_table
from tests.tasks.report.synthetic import catalog, sample

TEXTS = {
    # Half of all texts say "sky", a tenth "red", a fifth "dog".
    **dict.fromkeys(range(3), ("A", " red", " cup", ".")),
    **dict.fromkeys(range(3, 9), ("A", " big", " dog", ".")),
    **dict.fromkeys(range(9, 24), ("A", " sky", ".")),
    **dict.fromkeys(range(24, 30), ("A", " thing", ".")),
}
CATALOG = catalog(*(sample(number, tokens=tokens, grid=(2, 2)) for number, tokens in TEXTS.items()))
LEXICON = build_lexicon(list_words(CATALOG))

Exemplar = tuple[int, Sequence[float], Sequence[float]]
"""A sample with the activations at its visual and text tokens."""
IMAGE = [9.0, 0.0, 0.0, 0.0]
DARK = [0.0] * 4


def seen(sample_id: int) -> Exemplar:
    return sample_id, IMAGE, [0.0] * len(TEXTS[sample_id])


def said(sample_id: int, word: str, activation: float = 9.0) -> Exemplar:
    return sample_id, DARK, [activation * (token == word) for token in TEXTS[sample_id]]


def table_of(
    of: Mapping[int, Sequence[Exemplar]], highest: float = 10.0, **settings: Any
) -> pa.Table:
    moments = [
        {"layer": 2, "neuron": neuron, "max_visual": highest, "max_text": min(1.0, highest)}
        | {"n_visual": 100, "n_text": 40, "positive_visual": 0.25, "positive_text": 0.5}
        for neuron in of
    ]
    exemplars = exemplar_table(of, 2)
    table = pa.Table.from_pylist(moments, schema=MOMENTS.schema)
    chosen = AnalyseSettings(**({"min_exemplars": 3} | settings))
    seen = patches_of(exemplars, table, chosen)
    return responses(exemplars, table, LEXICON, seen, chosen)[0]


def of(exemplars: Sequence[Exemplar], **settings: Any) -> dict[str, Any]:
    (row,) = table_of({4: exemplars}, **settings).to_pylist()
    return row


def test_a_token_belongs_to_its_word_and_a_full_stop_to_itself():
    split = catalog(sample(0, tokens=("Cir", "cle", "s", " and", " ", "dogs", ".")))
    (row,) = list_words(split).to_pylist()
    assert row["words"] == ["circles", "circles", "circles", "and", "", "dogs", "."]


def test_the_lexicon_keeps_the_order_of_the_tokens_and_which_texts_have_a_word():
    words = list_words(catalog(*(sample(n, tokens=TEXTS[n]) for n in (0, 3, 9))))
    known = build_lexicon(words)
    assert known.words[known.tokens].tolist() == [
        word for row in words["words"].to_pylist() for word in row
    ]
    a = known.words.tolist().index("a")
    assert known.contains.toarray()[:, a].tolist() == [1, 1, 1]
    assert words.schema.equals(WORDS.schema)


def test_a_neuron_that_fires_on_a_sight_and_on_its_word_names_one_concept():
    row = of([seen(3), seen(4), seen(5), *(said(n, " dog") for n in (6, 7, 8))])
    assert (row["n_visual_exemplars"], row["n_text_exemplars"]) == (3, 3)
    assert (row["top_words"], row["top_word_shares"]) == (["dog"], [1.0])
    assert row["image_words"] == ["big", "dog"]
    assert row["same_concept"] is True


def test_a_neuron_that_fires_on_a_sight_and_on_another_word_does_not():
    row = of([seen(0), seen(1), seen(2), *(said(n, " dog") for n in (6, 7, 8))])
    assert row["top_words"] == ["dog"]
    assert row["image_words"] == ["cup", "red"]
    assert row["same_concept"] is False


def test_a_word_that_most_texts_have_is_not_seen_however_many_exemplars_have_it():
    row = of([seen(9), seen(10), seen(11)], min_lift=2.5)
    assert row["image_words"] == []  # Half of all texts say "sky".
    assert of([seen(9), seen(10), seen(11)])["image_words"] == ["sky"]


def test_a_word_that_few_exemplars_have_is_not_seen():
    row = of([seen(0), seen(9), seen(10), seen(11)])
    assert "red" not in row["image_words"]
    assert "red" in of([seen(0), seen(1), seen(9), seen(10)])["image_words"]


def test_a_top_word_of_few_texts_is_no_concept():
    various = [said(3, " dog"), said(9, " sky"), said(0, " cup"), said(1, " red")]
    row = of([seen(6), seen(7), seen(8), said(4, " dog"), *various])
    assert (row["top_words"][0], row["top_word_shares"][0]) == ("dog", 0.4)
    assert row["top_words"][1:] == ["cup", "red", "sky"]
    assert "dog" in row["image_words"]
    assert row["same_concept"] is False
    assert of([seen(6), seen(7), seen(8), said(4, " dog"), *various], min_share=0.4)["same_concept"]


def test_words_of_samples_that_were_chosen_for_a_word_are_not_taken_for_seen():
    loud_word = [(n, [6.0, 0, 0, 0], [9.0 * (t == " dog") for t in TEXTS[n]]) for n in (6, 7, 8)]
    row = of([*loud_word, seen(0), seen(1), seen(2)])
    assert (row["n_visual_exemplars"], row["n_text_exemplars"]) == (3, 3)
    assert "dog" not in row["image_words"]


def test_an_exemplar_that_excites_by_both_counts_for_the_role_of_its_peak_alone():
    louder_image = [(n, IMAGE, [6.0 * (t == " dog") for t in TEXTS[n]]) for n in (6, 7, 8)]
    row = of(louder_image)
    assert (row["n_visual_exemplars"], row["n_text_exemplars"], row["top_words"]) == (3, 0, [])


def test_too_few_exemplars_of_a_role_name_nothing():
    row = of([seen(3), seen(4), *(said(n, " dog") for n in (6, 7, 8))])
    assert row["image_words"] == []
    assert row["same_concept"] is None
    assert of([seen(3), seen(4), seen(5), said(6, " dog")])["same_concept"] is None


def test_weak_exemplars_do_not_count():
    exemplars = [seen(3), seen(4), *(said(n, " dog", 4.9) for n in (6, 7, 8))]
    assert of(exemplars)["n_text_exemplars"] == 0
    assert of(exemplars, strong_share=0.48)["n_text_exemplars"] == 3
    assert of(exemplars, highest=20.0)["n_visual_exemplars"] == 0


def test_concentration_is_over_the_images_that_excite_it_strongly():
    even = (5, [8.0] * 4, [0.0] * 4)
    weak = (6, [1.0] * 4, [2.0] * 4)
    assert of([seen(3), even, weak])["concentration"] == pytest.approx(0.5)
    assert of([weak, said(6, " dog")])["concentration"] is None


def test_every_neuron_gets_its_own_row_in_the_order_of_the_moments():
    neurons = {7: [seen(3)] * 3, 2: [said(9, " sky")] * 3, 5: []}
    table = table_of(neurons)
    assert table.schema.equals(RESPONSES.schema)
    assert table["neuron"].to_pylist() == [7, 2, 5]
    assert table["top_words"].to_pylist() == [[], ["sky"], []]
    assert table["image_words"].to_pylist() == [["big", "dog"], [], []]
    assert table["positive_visual"].to_pylist() == [0.25] * 3


def test_a_neuron_that_is_never_positive_responds_to_nothing():
    row = of([(3, [-1.0] * 4, [-1.0] * 4)] * 3, highest=-0.5)
    assert (row["n_visual_exemplars"], row["n_text_exemplars"]) == (0, 0)
    assert (row["concentration"], row["top_words"], row["same_concept"]) == (None, [], None)
