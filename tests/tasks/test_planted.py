"""The ground truth of the method: neurons whose function is known come out as what they are.

Every stage runs as in the workflow, on scenes that the planted probes were not fitted on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import MOMENTS, layer_file, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.classify.tested import RateRule
from neuron_atlas.tasks.evidence.evidence import Evidence, Purpose
from neuron_atlas.tasks.explain.chat import Chat
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.draw import Render
from neuron_atlas.tasks.explain.explanation import Explainer
from neuron_atlas.tasks.explain.rows import explanation_rows
from neuron_atlas.tasks.explain.select import NeuronChoice, select_neurons_to_explain
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.significance import add_significance
from neuron_atlas.tasks.simulate.concept import ConceptSimulator
from neuron_atlas.tasks.simulate.control import ExplainedNeuron, other_neurons
from neuron_atlas.tasks.simulate.rows import simulate_neurons
from neuron_atlas.tasks.simulate.simulator import Simulator
from neuron_atlas.tasks.subject.describe import generate_descriptions
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from tests.loopback.fixture import Loopback
from tests.one_process import capture, classify, describe, evidence, respond, types_by_tests
from tests.planting import FITTED_ON, PLANTS, TYPES, plant

LAYER = 1
SCENES = Scenes(count=400, seed=71)
CAPTURE = CaptureSettings(shards=2)
TYPES_THAT_FIRE = ("visual", "text", "multi-modal")
FIRING = [name for name in PLANTS if name != "never"]
CLAIMS = {
    "red patches": 'Image regions that show "red"',
    "green patches": 'Image regions that show "green"',
    "the word circle": 'The word "circle" in the text',
    "the word square": 'The word "square" in the text',
    "red in both": 'Image regions that show "red"; the word "red" in the text',
    "blue in both": 'Image regions that show "blue"; the word "blue" in the text',
}
WORDS = {
    "red patches": "red regions of a picture",
    "green patches": "green regions of a picture",
    "the word circle": 'the word "circle" in a text',
    "the word square": 'the word "square" in a text',
    "red in both": 'red regions of a picture and to the word "red" in a text',
    "blue in both": 'blue regions of a picture and to the word "blue" in a text',
}
PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
WRONG = 'Image regions that show "yellow"; the word "triangle" in the text.'
"""Never where a planted neuron fires, so its correlation is truly a little below 0, and an interval
need not cover 0: what must not happen is that it lies above."""
UNRELATED = {
    "red patches": 'Image regions that show "star".',
    "green patches": 'Image regions that show "star".',
    "red in both": 'Image regions that show "star"; the word "star" in the text.',
    "blue in both": 'Image regions that show "star"; the word "star" in the text.',
}
"""Wrong, but neither more nor less likely where the neuron fires. Words have no such other: a token
is one word and no second one."""
CROWD = 120
"""Neurons of the layer, beside the planted ones, whose explanations are shuffled."""


@dataclass(frozen=True)
class Atlas:
    """What each stage says of the planted neurons, by their names."""

    types: dict[str, dict]
    tested: dict[str, dict]
    responses: dict[str, dict]
    explanations: dict[str, dict]
    scores: dict[str, dict]
    wrong_scores: dict[str, dict]
    unrelated_scores: dict[str, dict]
    controls: dict[str, str]
    shown: dict[str, set[int]]
    held_out: dict[str, set[int]]


ByPurpose = dict[Purpose, list[Evidence]]
Claims = dict[tuple[int, int], ExplainedNeuron]
Captured = tuple[Path, Catalog, Subject]


def score_claims(
    explainer: str,
    by_purpose: ByPurpose,
    claims: Claims,
    controls: Claims,
    catalog: Catalog,
    simulator: Simulator = ConceptSimulator(),  # noqa: B008
    tokens: str = "all",
) -> list[dict]:
    """Simulated, scored and judged: the rows over all tokens, or over those of a role."""
    simulations = simulate_neurons(
        simulator,
        explainer,
        by_purpose["scorer"],
        by_purpose["calibration"],
        claims,
        controls,
        catalog,
        CallOptions(),
    )
    seen = {
        (one.layer, one.neuron, explainer): frozenset(one.sample_ids)
        for one in by_purpose["explainer"]
    }
    texts = {number: sample.tokens for number, sample in catalog.samples.items()}
    scores = score_neurons(simulations, by_purpose, texts, seen, ScoreSettings())
    return [row for row in add_significance(scores).to_pylist() if row["tokens"] == tokens]


@pytest.fixture(scope="module")
def planted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted") / "subject"


@pytest.fixture(scope="module")
def neurons(subject_folder: Path, planted_folder: Path) -> dict[str, int]:
    return plant(subject_folder, planted_folder, LAYER)


@pytest.fixture(scope="module")
def planted(neurons: dict[str, int], planted_folder: Path) -> Subject:
    return load_subject(SubjectSettings(model=str(planted_folder)), threads=1)


@pytest.fixture(scope="module")
def captured(planted: Subject, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    folder = tmp_path_factory.mktemp("captured")
    described = describe(planted, SCENES, folder, DescribeSettings(text_source="given"))
    capture(planted, described, [LAYER], CAPTURE, folder)
    return folder, described.catalog(), planted


@pytest.fixture(scope="module")
def atlas(captured: Captured, neurons: dict[str, int]) -> Atlas:
    return mapped(captured, neurons, Dissect())


@pytest.fixture(scope="module", params=get_args(Render))
def told_atlas(
    captured: Captured,
    neurons: dict[str, int],
    loopback_process: Loopback,
    request: pytest.FixtureRequest,
) -> Atlas:
    """The same by a chat model that looks at the pictures it is sent, in each rendering."""
    client = ClientSettings(base_url=loopback_process.base_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        chat = Chat(client=client, render=request.param, contrasts=2, prices=PRICES)
        return mapped(captured, neurons, chat)


def mapped(captured: Captured, neurons: dict[str, int], explainer: Explainer) -> Atlas:
    folder, catalog, subject = captured
    names = {neuron: name for name, neuron in neurons.items()}
    only = tuple(f"{LAYER}:{neuron}" for neuron in neurons.values())
    types = select_neurons_to_explain(classify(folder, LAYER, PaperRule()), NeuronChoice(only=only))
    by_purpose = evidence(subject, catalog, folder, types)
    shown, held_out = by_purpose["explainer"], by_purpose["scorer"]
    explanations = explanation_rows(
        explainer.name, shown, explainer.explain(shown, catalog, CallOptions())
    ).to_pylist()
    explained = {
        (row["layer"], row["neuron"]): ExplainedNeuron(
            row["layer"], row["neuron"], row["type"], row["text"]
        )
        for row in explanations
        if row["status"] == "ok"
    }
    controls = other_neurons(list(explained.values()), seed=0)
    wrong = {key: ExplainedNeuron(*key, own.type, WRONG) for key, own in explained.items()}
    unrelated = {
        key: ExplainedNeuron(*key, own.type, UNRELATED[names[key[1]]])
        for key, own in explained.items()
        if names[key[1]] in UNRELATED
    }

    def named(rows: list[dict]) -> dict[str, dict]:
        return {names[row["neuron"]]: row for row in rows if row["neuron"] in names}

    def ids(seen: list[Evidence]) -> dict[str, set[int]]:
        return {names[neuron.neuron]: set(neuron.sample_ids) for neuron in seen}

    def scored(claims: dict[tuple[int, int], ExplainedNeuron]) -> dict[str, dict]:
        return named(score_claims(explainer.name, by_purpose, claims, controls, catalog))

    return Atlas(
        types=named(types.to_pylist()),
        tested=named(types_by_tests(folder, [LAYER], RateRule(), folder / "tested").to_pylist()),
        responses=named(respond(subject, folder, LAYER, catalog).to_pylist()),
        explanations=named(explanations),
        scores=scored(explained),
        wrong_scores=scored(wrong),
        unrelated_scores=scored(unrelated),
        controls={names[key[1]]: names[other.neuron] for key, other in controls.items()},
        shown=ids(shown),
        held_out=ids(held_out),
    )


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_neuron_gets_the_type_of_its_function(atlas, name):
    row = atlas.types[name]
    assert row["type"] == TYPES[name]
    assert row["n_exemplars"] == 50


@pytest.mark.parametrize("name", PLANTS)
def test_the_tests_type_it_the_same_with_evidence(atlas, name):
    row = atlas.tested[name]
    assert row["type_tested"] == {"unknown": "silent"}.get(TYPES[name], TYPES[name])
    if TYPES[name] in ("visual", "text"):
        assert row["q_exact"] < 1e-20
        assert row["q_block"] < 1e-3
        assert (row["difference"] > 0) == (TYPES[name] == "visual")
    if TYPES[name] == "multi-modal":
        assert row["q_both"] < 1e-3


def test_its_favourite_word_and_what_is_seen_are_those_of_its_function(atlas):
    for name, function in PLANTS.items():
        row = atlas.responses[name]
        assert row["top_words"][:1] == ([function.word] if function.word else [])
        assert row["image_words"][:1] == ([function.patches] if function.patches else [])
        both = function.patches and function.word
        assert row["same_concept"] is (True if both else None)


def test_patches_of_one_color_are_few_and_so_its_excitement_is_concentrated(atlas):
    for name, function in PLANTS.items():
        concentration = atlas.responses[name]["concentration"]
        assert concentration is None if not function.patches else concentration > 0.85


@pytest.mark.parametrize("name", FIRING)
def test_its_type_is_that_of_most_of_its_exemplars_and_never_of_the_wrong_role(atlas, name):
    row = atlas.types[name]
    share = f"share_{row['type'].replace('-', '')}"
    assert row[share] > 0.5
    # What is left are exemplars too small to excite four patches.
    impossible = {"visual": "share_text", "text": "share_visual", "multi-modal": "share_unknown"}[
        row["type"]
    ]
    assert row[impossible] <= 0.1


def test_a_neuron_that_never_fires_has_no_scale_and_only_unknown_exemplars(
    atlas, captured, neurons
):
    assert (atlas.types["never"]["scale"], atlas.types["never"]["share_unknown"]) == (0, 1)
    moments = read_table(captured[0] / layer_file("moments", LAYER), MOMENTS).to_pylist()
    never = next(row for row in moments if row["neuron"] == neurons["never"])
    assert never["positive_visual"] == never["positive_text"] == 0
    assert never["m2_visual"] > 0


@pytest.mark.parametrize("name", FIRING)
def test_dissect_names_what_a_planted_neuron_fires_on(atlas, name):
    assert atlas.explanations[name]["text"].split(" (r = ")[0] == CLAIMS[name]


def test_a_neuron_that_never_fires_is_neither_explained_nor_scored(atlas):
    assert atlas.explanations["never"]["status"] == "no_evidence"
    assert atlas.explanations["never"]["text"] == ""
    assert (atlas.scores["never"]["status"], atlas.scores["never"]["correlation"]) == (
        "no_explanation",
        None,
    )


@pytest.mark.parametrize("name", FIRING)
def test_its_score_stands_far_above_its_controls(atlas, name):
    row = atlas.scores[name]
    assert row["status"] == "ok"
    assert row["correlation"] >= 0.8
    assert row["ci_low"] > 0.75
    assert abs(row["control_other"]) < 0.2
    assert row["control_blind"] < 0.3
    assert row["margin"] > 0.6
    assert row["margin_low"] > 0.5
    assert row["n_exemplars"] * 2 == row["n_samples"]


@pytest.mark.parametrize("name", FIRING)
def test_so_do_its_other_measures(atlas, name):
    row = atlas.scores[name]
    assert row["auroc"] > 0.95
    assert row["explained_variance"] > 0.6
    assert row["detection_auroc"] > 0.75 > 0.6 > row["detection_auroc_other"]
    assert row["balanced_accuracy"] > 0.75


@pytest.mark.parametrize("name", FIRING)
def test_a_wrong_explanation_scores_near_zero_and_never_above_it(atlas, name):
    row = atlas.wrong_scores[name]
    assert row["status"] == "ok"
    assert abs(row["correlation"]) < 0.05
    assert row["ci_low"] <= 0
    assert row["margin"] < 0
    assert row["explained_variance"] < 0.01
    assert 0.4 < row["auroc"] < 0.6


@pytest.mark.parametrize("name", UNRELATED)
def test_the_interval_of_an_unrelated_explanation_covers_zero(atlas, name):
    row = atlas.unrelated_scores[name]
    assert row["status"] == "ok"
    assert row["ci_low"] < 0 < row["ci_high"]


@pytest.fixture(scope="module")
def shuffled(captured: Captured, neurons: dict[str, int]) -> list[list[dict]]:
    """Scores of a crowd of neurons, each with another's explanation for its own; several times, the
    last with the controls of `other_neurons`."""
    folder, catalog, subject = captured
    whole = classify(folder, LAYER, PaperRule())
    types = select_neurons_to_explain(whole, NeuronChoice(types=TYPES_THAT_FIRE, count=CROWD))
    by_purpose = evidence(subject, catalog, folder, types)
    shown = by_purpose["explainer"]
    said = Dissect().explain(shown, catalog, CallOptions())
    crowd = [
        ExplainedNeuron(one.layer, one.neuron, one.type, explanation.text)
        for one, explanation in zip(shown, said, strict=True)
        if explanation.status == "ok"
    ]
    runs = []
    for seed in range(4):
        given, controls = (shuffle(crowd, [seed, side]) for side in (1, 2))
        runs.append(score_claims("dissect", by_purpose, given, controls, catalog))
    # Once more with controls as a run chooses them.
    given = shuffle(crowd, [4, 1])
    swapped = [replace(one, text=given[one.layer, one.neuron].text) for one in crowd]
    given = {(one.layer, one.neuron): one for one in swapped}
    controls = other_neurons(swapped, seed=0)
    assert len(controls) == len(swapped)
    runs.append(score_claims("dissect", by_purpose, given, controls, catalog))
    return runs


def shuffle(crowd: list[ExplainedNeuron], seed: list[int]) -> Claims:
    """Every neuron gets the explanation of one of the layer, of whatever type."""
    order = np.random.default_rng(seed).permutation(len(crowd))
    return {(one.layer, one.neuron): crowd[place] for one, place in zip(crowd, order, strict=True)}


def test_shuffled_explanations_score_around_zero(shuffled):
    for rows in shuffled:
        scores = [row["correlation"] for row in rows if row["correlation"] is not None]
        assert len(scores) > CROWD / 2
        assert abs(np.mean(scores)) < 3 * np.std(scores) / len(scores) ** 0.5
        assert abs(np.median(scores)) < 0.05


def test_of_shuffled_explanations_no_larger_share_than_q_beats_its_controls(shuffled):
    for rows in shuffled:
        tested = [row["q"] for row in rows if row["q"] is not None]
        assert len(tested) > CROWD / 3
        assert np.mean(np.array(tested) <= ScoreSettings().max_q) <= ScoreSettings().max_q


@pytest.mark.parametrize("name", FIRING)
def test_the_control_is_the_other_planted_neuron_of_its_type(atlas, name):
    (twin,) = (other for other in FIRING if TYPES[other] == TYPES[name] and other != name)
    assert atlas.controls[name] == twin


@pytest.mark.parametrize("name", PLANTS)
def test_it_was_scored_on_samples_that_the_explainer_never_saw(atlas, name):
    assert not atlas.shown[name] & atlas.held_out[name]
    assert len(atlas.held_out[name]) >= 20


@pytest.mark.parametrize("name", FIRING)
def test_who_looks_at_what_is_sent_says_what_a_planted_neuron_fires_on(told_atlas, name):
    row = told_atlas.explanations[name]
    assert row["text"] == f"The neuron responds to {WORDS[name]}."
    assert row["confidence"] > 0.5


@pytest.mark.parametrize("name", FIRING)
def test_what_was_said_in_words_scores_far_above_its_control(told_atlas, name):
    row = told_atlas.scores[name]
    assert (row["status"], row["explainer"]) == ("ok", "gpt4o")
    assert row["correlation"] > 0.75
    assert row["margin"] > 0.6


def test_a_neuron_that_never_fires_is_not_asked_about(told_atlas):
    row = told_atlas.explanations["never"]
    assert (row["status"], row["attempts"]) == ("no_evidence", 0)


def test_planting_leaves_the_subjects_behaviour_as_it_was(subject, planted, neurons):
    assert len(set(neurons.values())) == len(PLANTS)
    records = [record for record, _ in zip(SCENES.records(), range(40), strict=False)]
    images = [[SCENES.open_image(record.image).pixels] for record in records]
    before, after = (
        [text for text, _ in generate_descriptions(model, images, 80)]
        for model in (subject, planted)
    )
    assert sum(a == b for a, b in zip(before, after, strict=True)) >= 36


def test_the_scenes_are_not_those_that_the_probes_were_fitted_on():
    assert SCENES.seed != FITTED_ON.seed
