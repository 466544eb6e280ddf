from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import EXPLANATION_STATUSES, EXPLANATIONS
from neuron_atlas.tasks.concepts.formula import Atom, Formula, Term
from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words
from neuron_atlas.tasks.concepts.sentence import write_explanation
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.explanation import Background, Explanation
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


def image_term(concept: str) -> Term:
    return Term("visual", (Atom("shows", (concept,)),))


def word_term(word: str) -> Term:
    return Term("text", (Atom("word", (word,)),))


@pytest.mark.parametrize(
    ("terms", "correlations", "said"),
    [
        (
            [image_term("red")],
            [0.8312],
            'Image regions that show "red" (r = 0.83 over 25 samples).',
        ),
        ([word_term("dog")], [0.5], 'The word "dog" in the text (r = 0.50 over 25 samples).'),
        (
            [image_term("top left"), word_term("left")],
            [1, 0.049],
            'Image regions that show "top left"; the word "left" in the text '
            "(r = 1.00 and 0.05 over 25 samples).",
        ),
    ],
)
def test_a_sentence_says_what_was_found_and_the_figures_it_rests_on(terms, correlations, said):
    assert write_explanation(Formula(tuple(terms)), correlations, 25) == said


def to_either(*responses: Respond) -> Respond:
    return lambda sample_id: np.maximum.reduce([one(sample_id) for one in responses])


def to_both(*responses: Respond) -> Respond:
    return lambda sample_id: np.minimum.reduce([one(sample_id) for one in responses])


def next_to(catalog: Catalog, word: str, *, after: str = "", before: str = "") -> Respond:
    """Fires on a word between these neighbors, written without the grammar's own code."""

    def respond(sample_id: int) -> np.ndarray:
        said = token_words(catalog[sample_id])
        return np.array(
            [
                3.0
                * (
                    one == word
                    and (not after or (place > 0 and said[place - 1] == after))
                    and (not before or (*said, "", "")[place + 1] == before)
                )
                for place, one in enumerate(said)
            ],
            np.float32,
        )

    return respond


@pytest.mark.parametrize("amount", [0.0, 0.5])
def test_a_disjunction_of_words_is_recovered_word_for_word(catalog, amount):
    small, large = to_word(catalog, "small"), to_word(catalog, "large")
    fires = noise(catalog, to_either(small, large), amount)
    said = claim(dissect(neuron("text", to_patches(catalog, "blue"), fires), catalog))
    assert said == 'The words "large" or "small" in the text'


@pytest.mark.parametrize("amount", [0.0, 0.5])
def test_a_conjunction_of_a_word_and_its_neighbor_is_recovered_word_for_word(catalog, amount):
    fires = noise(catalog, next_to(catalog, "is", after="background"), amount)
    said = claim(dissect(neuron("text", to_patches(catalog, "blue"), fires), catalog))
    # "background" is always followed by "is", so the shorter of two equal formulas is enough.
    assert said == 'Any word after "background" in the text'
    fires = noise(catalog, next_to(catalog, "the", before="top"), amount)
    said = claim(dissect(neuron("text", to_patches(catalog, "blue"), fires), catalog))
    assert said == 'Any word before "top" in the text'
    fires = noise(catalog, next_to(catalog, "is", before="large"), amount)
    said = claim(dissect(neuron("text", to_patches(catalog, "blue"), fires), catalog))
    assert said == 'The word "is" before "large" in the text'


@pytest.mark.parametrize("amount", [0.0, 0.3])
def test_disjunctions_and_conjunctions_of_an_image_are_recovered_word_for_word(catalog, amount):
    red, blue, large = (to_patches(catalog, name) for name in ("red", "blue", "large"))
    either, both = (noise(catalog, f, amount) for f in (to_either(red, blue), to_both(red, large)))
    every = tuple(sorted(catalog.samples))
    said = claim(dissect(neuron("visual", either, either), catalog))
    assert said == 'Image regions that show "blue" or "red"'
    said = claim(dissect(neuron("visual", both, both, every), catalog))
    assert said == 'Image regions that show "large" and also "red"'


def grown(patches: np.ndarray) -> np.ndarray:
    """Patches of an 8 x 8 grid that are in a set or touch one of it."""
    rows, columns = np.nonzero(patches.reshape(8, 8))
    all_rows, all_columns = np.divmod(np.arange(64), 8)
    steps = np.maximum(abs(all_rows[:, None] - rows), abs(all_columns[:, None] - columns))
    return (steps <= 1).any(axis=1)


@pytest.mark.parametrize("amount", [0.0, 0.3])
def test_the_edge_of_a_concept_and_the_patches_next_to_it_are_recovered(catalog, amount):
    red = to_patches(catalog, "red", 1.0)

    def edge(number: int) -> np.ndarray:
        return 3.0 * ((red(number) > 0.05) & (red(number) < 0.95))

    def around(number: int) -> np.ndarray:
        shows = red(number) > 0.3
        return 3.0 * (grown(shows) & ~shows)

    every = tuple(sorted(catalog.samples))
    for respond, said in ((edge, "at the edge of"), (around, "next to")):
        fires = noise(catalog, respond, amount)
        explanation = dissect(neuron("visual", fires, red, every), catalog)
        assert claim(explanation) == f'Image regions {said} "red"'


@pytest.mark.parametrize("amount", [0.0, 0.3])
def test_an_exception_is_recovered_word_for_word(catalog, amount):
    gray, red = to_patches(catalog, "gray", 1.0), to_patches(catalog, "red", 1.0)

    def not_gray_top(number: int) -> np.ndarray:
        return 3.0 * (np.arange(64) < 32) * (gray(number) <= 0.3)

    fires = noise(catalog, not_gray_top, amount)
    every = tuple(sorted(catalog.samples))
    said = claim(dissect(neuron("visual", fires, red, every), catalog))
    assert said == 'Image regions in the top half but not "gray"'


def test_weaker_words_are_said_to_be_weaker(catalog):
    fires = to_either(to_word(catalog, "circle", 3.0), to_word(catalog, "is", 0.9))
    said = claim(dissect(neuron("text", to_patches(catalog, "blue"), fires), catalog))
    assert said == 'Strongly: the word "circle" in the text; weakly: the word "is" in the text'


def test_an_explanation_has_no_more_atoms_than_allowed(catalog):
    fires = to_either(*(to_word(catalog, word) for word in ("is", "at", "and", "red", "circle")))
    evidence = neuron("text", to_patches(catalog, "blue"), fires)
    for limit in (1, 2, 3):
        said = claim(dissect(evidence, catalog, Dissect(max_length=limit)))
        assert said.count('"') == 2 * limit


def test_a_neuron_has_the_same_explanation_whatever_others_are_explained_with_it(catalog):
    kinds = [
        neuron("text", to_patches(catalog, "red"), noise(catalog, to_word(catalog, word), 2), part)
        for word in ("is", "circle", "large")
        for part in (range(12), range(5, 20), range(8, 24))
    ]
    together = Dissect().explain(kinds, catalog, CallOptions())
    assert [one.text for one in together] == [dissect(one, catalog).text for one in kinds]


def test_activations_that_do_not_fit_their_sample_are_refused(catalog):
    fires = to_word(catalog, "is")
    longer = neuron("text", to_patches(catalog, "blue"), lambda number: fires(number).repeat(2))
    with pytest.raises(ValueError, match="differ in number"):
        dissect(longer, catalog)


def test_a_class_of_words_is_named_even_by_members_that_the_neuron_was_not_shown(catalog):
    colors = ("black", "blue", "green", "orange", "purple", "red", "white", "yellow")
    any_color = to_either(*(to_word(catalog, word) for word in colors))
    evidence = neuron("text", to_patches(catalog, "blue"), noise(catalog, any_color, 0.3))
    classes = Background(word_classes=[colors, ("large", "small")])
    (explanation,) = Dissect().explain_with(classes, [evidence], catalog, CallOptions())
    listed = ", ".join(f'"{word}"' for word in colors[:-1])
    assert claim(explanation) == f'The words {listed} or "yellow" in the text'
    assert len(claim(dissect(evidence, catalog, Dissect(max_length=1)))) < 40


def test_calibration_samples_decide_how_long_an_explanation_is(catalog):
    is_, at = to_word(catalog, "is"), to_word(catalog, "at", 1.5)
    nothing = to_patches(catalog, "blue")
    shown = neuron("text", nothing, to_either(is_, at), range(12))
    assert claim(dissect(shown, catalog)).count('"') == 4

    def explained(respond: Respond, patches: Respond = nothing) -> str:
        background = Background([neuron("text", patches, respond, range(12, 24))])
        (one,) = Dissect().explain_with(background, [shown], catalog, CallOptions())
        assert set(one.exemplar_ids) == set(shown.sample_ids)
        return claim(one)

    assert explained(to_either(is_, at)).count('"') == 4
    assert explained(is_) == 'The word "is" in the text'
    silent = explained(lambda number: 0 * is_(number), lambda number: 0 * nothing(number))
    assert silent == claim(dissect(shown, catalog))


def test_an_edge_is_no_condition_where_the_inside_excites_as_much(catalog):
    red = to_patches(catalog, "red", 1.0)
    every = tuple(sorted(catalog.samples))
    evidence = neuron("visual", lambda number: 3.0 * (red(number) > 0.3), red, every)
    assert 'edge of "red"' not in claim(dissect(evidence, catalog))
