from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import EXPLANATION_STATUSES, EXPLANATIONS
from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.explain.dissect import ConceptMatch, Dissect, explanation_sentence
from neuron_atlas.tasks.explain.explanation import Explanation
from neuron_atlas.tasks.explain.rows import explanation_rows
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.one_process import Described

Respond = Callable[[int], np.ndarray]
"""What a made-up neuron does at the visual, or at the text, tokens of a sample."""


@pytest.fixture(scope="module")
def catalog(scenes: Described) -> Catalog:
    return scenes.catalog()


@pytest.fixture(scope="module")
def plain(catalog: Catalog) -> Catalog:
    """The same samples from a source that knows no truth about them."""
    return replace(catalog, truths={})


def to_patches(catalog: Catalog, concept: str, strength: float = 3.0) -> Respond:
    def respond(sample_id: int) -> np.ndarray:
        truths = [t for t in catalog.concepts(sample_id) if t.name == concept]
        covers = [patch_coverage(truth, catalog[sample_id]) for truth in truths]
        return strength * sum(covers, np.zeros(64, np.float32))

    return respond


def to_word(catalog: Catalog, word: str, strength: float = 3.0) -> Respond:
    def respond(sample_id: int) -> np.ndarray:
        said = [token == word for token in token_words(catalog[sample_id])]
        return strength * np.array(said, dtype=np.float32)

    return respond


def noise(catalog: Catalog, respond: Respond, amount: float) -> Respond:
    def noisy(sample_id: int) -> np.ndarray:
        clean = respond(sample_id)
        rng = np.random.default_rng(sample_id)
        return (clean + amount * rng.normal(size=len(clean))).astype(np.float32)

    return noisy


def neuron(
    kind: str, visual: Respond, text: Respond, samples: Sequence[int] = tuple(range(24))
) -> Evidence:
    seen = [ActivationRecord(number, visual(number), text(number)) for number in samples]
    return Evidence(1, 7, kind, 3.0, exemplars=tuple(seen[::2]), random=tuple(seen[1::2]))


def dissect(evidence: Evidence, catalog: Catalog, explainer: Dissect | None = None) -> Explanation:
    (explanation,) = (explainer or Dissect()).explain([evidence], catalog, CallOptions())
    assert explanation.status in EXPLANATION_STATUSES
    return explanation


def claim(explanation: Explanation) -> str:
    return explanation.text.split(" (r = ")[0]


@pytest.mark.parametrize("concept", ["red", "circle", "center", "top left", "gray"])
def test_a_visual_neuron_is_named_by_the_concept_of_its_patches(catalog, concept):
    evidence = neuron("visual", to_patches(catalog, concept), to_word(catalog, "the"))
    explanation = dissect(evidence, catalog)
    assert claim(explanation) == f'Image regions that show "{concept}"'
    assert explanation.status == "ok"


@pytest.mark.parametrize("word", ["red", "circle", "large", "background"])
def test_a_text_neuron_is_named_by_its_word(catalog, word):
    evidence = neuron("text", to_patches(catalog, "blue"), to_word(catalog, word))
    assert claim(dissect(evidence, catalog)) == f'The word "{word}" in the text'


def test_a_multimodal_neuron_is_named_by_both(catalog):
    evidence = neuron("multi-modal", to_patches(catalog, "red"), to_word(catalog, "circle"))
    said = claim(dissect(evidence, catalog))
    assert said == 'Image regions that show "red"; the word "circle" in the text'


def test_a_neuron_of_unknown_type_is_named_by_the_better_of_the_two(catalog):
    red, circle = to_patches(catalog, "red"), to_word(catalog, "circle")
    clearly_text = neuron("unknown", noise(catalog, red, 2), circle)
    clearly_visual = neuron("unknown", red, noise(catalog, circle, 2))
    assert claim(dissect(clearly_text, catalog)) == 'The word "circle" in the text'
    assert claim(dissect(clearly_visual, catalog)) == 'Image regions that show "red"'


def test_noise_does_not_hide_the_concept(catalog):
    red = noise(catalog, to_patches(catalog, "red"), 0.5)
    explanation = dissect(neuron("visual", red, red), catalog)
    assert claim(explanation) == 'Image regions that show "red"'


def test_the_figure_is_the_correlation_over_all_tokens_of_the_samples_shown(catalog):
    red = noise(catalog, to_patches(catalog, "red"), 0.7)
    explanation = dissect(neuron("visual", red, red), catalog)
    presence = to_patches(catalog, "red", 1.0)
    real, shown = (np.concatenate([f(number) for number in range(24)]) for f in (red, presence))
    r = np.corrcoef(real, shown)[0, 1]
    assert explanation.text.endswith(f"(r = {r:.2f} over 24 samples).")


def test_the_samples_that_were_shown_are_named(catalog):
    evidence = neuron("text", to_word(catalog, "a"), to_word(catalog, "a"), samples=[3, 9, 4])
    assert dissect(evidence, catalog).exemplar_ids == (3, 4, 9)
    assert set(dissect(evidence, catalog).exemplar_ids) == set(evidence.sample_ids)


def test_a_concept_of_too_few_samples_is_not_considered(catalog):
    with_red = [n for n in range(24) if any(t.name == "red" for t in catalog.concepts(n))]
    without = [n for n in range(24) if n not in with_red]
    red = to_patches(catalog, "red")
    evidence = neuron("visual", red, red, samples=[with_red[0], *without[:5]])
    assert '"red"' not in dissect(evidence, catalog).text
    assert '"red"' in dissect(evidence, catalog, Dissect(min_samples=1)).text


@pytest.mark.parametrize("strength", [0.0, -2.0])
@pytest.mark.parametrize("kind", ["visual", "text", "multi-modal", "unknown"])
def test_a_neuron_that_never_varies_has_no_evidence_for_anything(catalog, kind, strength):
    def same(tokens: int) -> Respond:
        return lambda number: np.full(tokens or len(catalog[number].tokens), strength, np.float32)

    explanation = dissect(neuron(kind, same(64), same(0)), catalog)
    assert (explanation.status, explanation.text) == ("no_evidence", "")
    assert explanation.reason
    assert len(explanation.exemplar_ids) == 24


def test_a_neuron_that_is_never_active_has_no_evidence_however_its_silence_varies(catalog):
    murmur = neuron("unknown", to_patches(catalog, "red", 0.1), to_word(catalog, "a"))
    below_zero = replace(murmur, scale=0.0)
    explanation = dissect(below_zero, catalog)
    assert (explanation.status, explanation.reason) == ("no_evidence", "the neuron is never active")
    assert len(explanation.exemplar_ids) == 24


def test_a_neuron_without_samples_has_no_evidence(catalog):
    nothing = to_word(catalog, "a")
    assert dissect(neuron("visual", nothing, nothing, samples=[]), catalog).status == "no_evidence"


def test_a_word_that_a_neuron_avoids_is_not_its_name(catalog):
    explanation = dissect(neuron("text", to_word(catalog, "a"), to_word(catalog, "a", -1)), catalog)
    assert '"a"' not in explanation.text


def test_without_the_truth_the_words_of_a_text_stand_for_its_image(catalog, plain):
    def where_red_is_mentioned(number: int) -> np.ndarray:
        return np.full(64, 2.0 if "red" in catalog[number].text else 0.0, np.float32)

    evidence = neuron("visual", where_red_is_mentioned, to_word(catalog, "a"))
    assert claim(dissect(evidence, plain)) == 'Image regions that show "red"'


def test_neurons_are_answered_in_order_and_written_one_a_row(catalog):
    red, circle = to_patches(catalog, "red"), to_word(catalog, "circle")
    evidence = [neuron("text", red, circle), neuron("visual", red, circle)]
    explanations = Dissect().explain(evidence, catalog, CallOptions())
    rows = explanation_rows("dissect", evidence, explanations)
    assert rows.schema.equals(EXPLANATIONS.schema)
    assert rows["text"].to_pylist() == [explanation.text for explanation in explanations]
    assert ["circle" in text for text in rows["text"].to_pylist()] == [True, False]
    assert set(rows["explainer"].to_pylist()) == {"dissect"}
    assert set(rows["exemplar_ids"][0].as_py()) == set(evidence[0].sample_ids)
    assert (rows["cost"][0].as_py(), rows["model"][0].as_py()) == (0, "")


@pytest.mark.parametrize(
    ("visual", "text", "said"),
    [
        (
            ConceptMatch("red", 0.8312),
            None,
            'Image regions that show "red" (r = 0.83 over 25 samples).',
        ),
        (None, ConceptMatch("dog", 0.5), 'The word "dog" in the text (r = 0.50 over 25 samples).'),
        (
            ConceptMatch("top left", 1),
            ConceptMatch("left", 0.049),
            'Image regions that show "top left"; the word "left" in the text '
            "(r = 1.00 and 0.05 over 25 samples).",
        ),
    ],
)
def test_a_sentence_says_what_was_found_and_the_figures_it_rests_on(visual, text, said):
    assert explanation_sentence(visual, text, 25) == said
