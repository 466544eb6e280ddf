from dataclasses import replace

import numpy as np
import pytest

from neuron_atlas.tasks.concepts.formula import Atom, Formula, Term
from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words
from neuron_atlas.tasks.concepts.sentence import write_explanation
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.concept import ConceptSimulator, read_terms
from neuron_atlas.tasks.simulate.simulator import Prediction, SimulationRequest
from tests.one_process import Described


@pytest.fixture(scope="module")
def catalog(scenes: Described) -> Catalog:
    return scenes.catalog()


def showing(catalog: Catalog, concept: str) -> list[int]:
    names = {number: [t.name for t in catalog.concepts(number)] for number in catalog.samples}
    return [number for number, seen in names.items() if concept in seen]


def simulate(catalog: Catalog, explanation: str, sample_id: int) -> Prediction:
    (prediction,) = ConceptSimulator().simulate(
        [SimulationRequest(explanation, sample_id)], catalog, CallOptions()
    )
    assert (prediction.status, prediction.estimator) == ("ok", "presence")
    assert len(prediction.visual) == catalog[sample_id].n_visual
    assert len(prediction.text) == len(catalog[sample_id].tokens)
    assert prediction.visual.dtype == prediction.text.dtype == np.float32
    return prediction


def coverage(catalog: Catalog, concept: str, sample_id: int) -> np.ndarray:
    (truth,) = (t for t in catalog.concepts(sample_id) if t.name == concept)
    return patch_coverage(truth, catalog[sample_id])


def said(catalog: Catalog, sample_id: int, *words: str) -> list[bool]:
    return [word in words for word in token_words(catalog[sample_id])]


@pytest.mark.parametrize(
    ("explanation", "visual", "text"),
    [
        ('Image regions that show "red".', {"red"}, set()),
        ('The word "circle" in the text.', set(), {"circle"}),
        (
            'Image regions that show "top left"; the word "left" in the text.',
            {"top left"},
            {"left"},
        ),
        ("“Red” patches of the image.", {"red"}, set()),
        ("Image patches that show «red» or “blue”.", {"red", "blue"}, set()),
        ("Red circles in images.", {"red", "circle"}, set()),
        ("Mentions of dogs and cats in the text.", set(), {"dog", "cat"}),
        (
            "This neuron responds to red circles in images and the word circle",
            {"red", "circle"},
            {"circle"},
        ),
        (
            "This neuron responds to image regions of grass, and the words 'grass' and 'lawn'.",
            {"grass"},
            {"grass", "lawn"},
        ),
        ("Bright red. The word stop.", {"bright", "red"}, {"bright", "red", "stop"}),
        ("Glass", {"glass"}, {"glass"}),
        ("Images of red shapes, but not blue ones.", {"red", "shape"}, set()),
        ("Images of fruit, e.g. apples.", {"fruit", "apple"}, set()),
        ("The word 'stop', never 'go'.", set(), {"stop"}),
        ('The tokens "is" and "the".', set(), {"is", "the"}),
        ("", set(), set()),
        ("This neuron responds to the image and the text.", set(), set()),
    ],
)
def test_a_claim_is_read_clause_by_clause_for_the_role_it_speaks_of(explanation, visual, text):
    terms = read_terms(explanation)
    assert (set(terms.visual), set(terms.text)) == (visual, text)


@pytest.mark.parametrize(
    ("visual", "text"), [("red", None), (None, "circle"), ("top left", "don't")]
)
def test_what_dissect_says_is_read_back_as_it_was_meant(visual, text):
    terms = [Term("visual", (Atom("shows", (visual,)),))] if visual else []
    terms += [Term("text", (Atom("word", (text,)),))] if text else []
    terms = read_terms(write_explanation(Formula(tuple(terms)), [0.5] * len(terms), 25))
    assert set(terms.visual) == ({visual} if visual else set())
    assert set(terms.text) == ({text} if text else set())


FIGURES = " (r = 0.83 and 0.10 over 25 samples)."


def test_a_composed_explanation_is_predicted_term_by_term(catalog):
    explanation = (
        'Strongly: image regions that show "red" but not "large"; moderately: the word "is" after '
        '"background" in the text; weakly: image regions in the top half; '
        'the words "." or "and" in the first sentence' + FIGURES
    )
    for sample_id in range(8):
        prediction = simulate(catalog, explanation, sample_id)
        names = {t.name for t in catalog.concepts(sample_id)}
        red, large = (
            coverage(catalog, name, sample_id) if name in names else np.zeros(64, np.float32)
            for name in ("red", "large")
        )
        top = np.where(np.arange(64) < 32, np.float32(0.3), 0)
        expected = np.maximum(np.minimum(red, 1 - large), top)
        np.testing.assert_allclose(prediction.visual, expected, atol=1e-6)
        tokens = [token.strip().casefold() for token in catalog[sample_id].tokens]
        end = tokens.index(".")
        for place, (token, value) in enumerate(zip(tokens, prediction.text.tolist(), strict=True)):
            is_first = token in (".", "and") and place <= end
            is_said = token == "is" and tokens[place - 1] == "background"
            assert value == pytest.approx(0.6 if is_said else 0.3 if is_first else 0)


def test_a_composed_explanation_names_words_exactly(catalog):
    sample_id = showing(catalog, "circle")[0]
    plural = simulate(catalog, 'The word "circles" in the text' + FIGURES, sample_id)
    singular = simulate(catalog, 'The word "circle" in the text' + FIGURES, sample_id)
    assert not plural.text.any()
    assert singular.text.tolist() == said(catalog, sample_id, "circle")


def test_without_the_truth_a_composed_explanation_takes_the_words_for_the_image(catalog):
    plain = replace(catalog, truths={})
    for sample_id in plain.samples:
        prediction = simulate(plain, 'Image regions that show "red"' + FIGURES, sample_id)
        assert set(prediction.visual.tolist()) == {float("red" in plain[sample_id].text)}


def test_figures_in_parentheses_are_not_read():
    terms = read_terms("Image regions that show cats (r = 0.83 over 25 samples).")
    assert set(terms.visual) == {"cat"}


def test_visual_tokens_are_predicted_by_the_coverage_of_the_true_concept(catalog):
    for sample_id in showing(catalog, "red"):
        prediction = simulate(catalog, 'Image regions that show "red".', sample_id)
        np.testing.assert_array_equal(prediction.visual, coverage(catalog, "red", sample_id))
        assert prediction.visual.max() > 0
        assert not prediction.text.any()


def test_text_tokens_are_predicted_where_the_word_is(catalog):
    for sample_id in showing(catalog, "circle"):
        prediction = simulate(catalog, 'The word "circle" in the text.', sample_id)
        assert prediction.text.tolist() == said(catalog, sample_id, "circle")
        assert prediction.text.sum() >= 2
        assert not prediction.visual.any()


def test_several_concepts_predict_where_any_of_them_is(catalog):
    tried = 0
    for sample_id in catalog.samples:
        colors, shapes = (
            [truth.name for truth in catalog.concepts(sample_id) if truth.kind == kind]
            for kind in ("color", "shape")
        )
        if len(colors) == len(shapes) == 2:
            tried += 1
            color, shape = colors[0], shapes[1]
            prediction = simulate(
                catalog,
                f"This neuron responds to {color} {shape} shapes in images and the word {shape}",
                sample_id,
            )
            parts = [coverage(catalog, name, sample_id) for name in (color, shape)]
            np.testing.assert_array_equal(prediction.visual, np.maximum(*parts))
            assert prediction.text.tolist() == said(catalog, sample_id, shape)
    assert tried > 5


def test_a_name_of_several_words_is_one_concept_of_the_image_and_several_words_of_the_text(catalog):
    sample_id = showing(catalog, "top left")[0]
    prediction = simulate(catalog, '"Top left"', sample_id)
    np.testing.assert_array_equal(prediction.visual, coverage(catalog, "top left", sample_id))
    assert prediction.text.tolist() == said(catalog, sample_id, "top", "left")


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("circles", "circle"),
        ("crosses", "cross"),
        ("boxes", "box"),
        ("dishes", "dish"),
        ("churches", "church"),
        ("red squares", "red square"),
        ("glass", "glass"),
        ("Dogs", "dog"),
    ],
)
def test_a_plural_names_the_singular(plural, singular):
    assert read_terms(f'Images of "{plural}".') == read_terms(f'Images of "{singular}".')
    assert set(read_terms(f'Images of "{plural}".').visual) == {singular}


@pytest.mark.parametrize(
    "explanation", ["", "   ", "This neuron responds to the image.", "(r = 1)"]
)
def test_an_explanation_that_names_nothing_predicts_nothing_anywhere(catalog, explanation):
    for sample_id in range(3):
        prediction = simulate(catalog, explanation, sample_id)
        assert not prediction.visual.any()
        assert not prediction.text.any()


def test_a_concept_that_is_not_there_predicts_nothing(catalog):
    absent = sorted(set(catalog.samples) - set(showing(catalog, "red")))[0]
    assert not simulate(catalog, 'Image regions that show "red".', absent).visual.any()


def test_without_the_truth_a_text_that_has_the_word_stands_for_its_image(catalog):
    plain = replace(catalog, truths={})
    for sample_id in plain.samples:
        prediction = simulate(plain, 'Image regions that show "red".', sample_id)
        assert set(prediction.visual.tolist()) == {float("red" in plain[sample_id].text)}


def test_predictions_come_in_the_order_of_the_questions(catalog):
    said = ('Image regions that show "red"; the word "circle" in the text.', "", "Blue shapes.")
    questions = [
        SimulationRequest(said[place % 3], number) for place, number in enumerate((5, 2, 9, 5, 5))
    ]
    together = ConceptSimulator().simulate(questions, catalog, CallOptions())
    for prediction, asked in zip(together, questions, strict=True):
        alone = simulate(catalog, asked.explanation, asked.sample_id)
        assert prediction.visual.tolist() == alone.visual.tolist()
        assert prediction.text.tolist() == alone.text.tolist()
