"""The planted neurons once more, simulated by a chat model that knows only what it is sent.

It looks at each picture and each token, and at the words of the explanation; see
tests/loopback/rating.py.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.select import NeuronChoice, select_neurons_to_explain
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.simulate.chat import ChatSimulator
from neuron_atlas.tasks.simulate.control import ExplainedNeuron, other_neurons
from tests.loopback.fixture import Loopback
from tests.one_process import classify, evidence
from tests.tasks.test_planted import (
    FIRING,
    LAYER,
    PRICES,
    TYPES,
    TYPES_THAT_FIRE,
    UNRELATED,
    WORDS,
    WRONG,
    ByPurpose,
    Captured,
    Claims,
    captured,
    neurons,
    planted,
    planted_folder,
    score_claims,
    shuffle,
)

__all__ = ["captured", "neurons", "planted", "planted_folder"]

pytestmark = pytest.mark.slow
CROWD = 60


@pytest.fixture(scope="module")
def simulator(loopback_process: Loopback) -> Iterator[ChatSimulator]:
    client = ClientSettings(base_url=loopback_process.base_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield ChatSimulator(client=client, grid="full", image_size=200, prices=PRICES)


@pytest.fixture(scope="module")
def by_purpose(captured: Captured, neurons: dict[str, int]) -> ByPurpose:
    only = tuple(f"{LAYER}:{neuron}" for name, neuron in neurons.items() if name in FIRING)
    types = select_neurons_to_explain(
        classify(captured[0], LAYER, PaperRule()), NeuronChoice(only=only)
    )
    folder, catalog, subject = captured
    return evidence(subject, catalog, folder, types)


@pytest.fixture(scope="module")
def scored(
    captured: Captured,
    neurons: dict[str, int],
    by_purpose: ByPurpose,
    simulator: ChatSimulator,
) -> dict[str, dict[str, dict]]:
    """Scores of the right explanations, of wrong ones, and of unrelated ones, by neuron."""
    claims = {
        "right": {name: f"The neuron responds to {WORDS[name]}." for name in FIRING},
        "wrong": dict.fromkeys(FIRING, WRONG),
        "unrelated": UNRELATED,
    }

    def explained(said: dict[str, str]) -> Claims:
        return {
            (LAYER, neurons[name]): ExplainedNeuron(LAYER, neurons[name], TYPES[name], words)
            for name, words in said.items()
        }

    names = {neuron: name for name, neuron in neurons.items()}
    controls = other_neurons(list(explained(claims["right"]).values()), seed=0)
    return {
        kind: {
            names[row["neuron"]]: row
            for row in score_claims(
                "told", by_purpose, explained(said), controls, captured[1], simulator
            )
        }
        for kind, said in claims.items()
    }


@pytest.mark.parametrize("name", FIRING)
def test_the_right_explanation_scores_far_above_its_controls(scored, name):
    row = scored["right"][name]
    assert (row["status"], row["simulator"]) == ("ok", "chat")
    assert row["correlation"] >= 0.8
    assert abs(row["control_other"]) < 0.2
    assert row["margin_low"] > 0.4


@pytest.mark.parametrize("name", FIRING)
def test_it_tells_exciting_samples_from_others(scored, name):
    row = scored["right"][name]
    assert row["detection_auroc"] > 0.75 > row["detection_auroc_other"]


@pytest.mark.parametrize("name", FIRING)
def test_a_wrong_explanation_scores_near_zero_and_never_above_it(scored, name):
    row = scored["wrong"][name]
    assert row["status"] == "ok"
    assert abs(row["correlation"]) < 0.05
    assert row["ci_low"] <= 0
    assert row["margin"] < 0


@pytest.mark.parametrize("name", UNRELATED)
def test_the_interval_of_an_unrelated_explanation_covers_zero(scored, name):
    row = scored["unrelated"][name]
    assert row["status"] == "ok"
    assert row["ci_low"] < 0 < row["ci_high"]


@pytest.fixture(scope="module")
def shuffled(captured: Captured, simulator: ChatSimulator) -> list[dict]:
    """Scores of a crowd of neurons, each with another's explanation for its own."""
    folder, catalog, subject = captured
    types = select_neurons_to_explain(
        classify(folder, LAYER, PaperRule()), NeuronChoice(types=TYPES_THAT_FIRE, count=CROWD)
    )
    seen = evidence(subject, catalog, folder, types)
    said = Dissect().explain(seen["explainer"], catalog, CallOptions())
    crowd = [
        ExplainedNeuron(one.layer, one.neuron, one.type, explanation.text.split(" (r = ")[0])
        for one, explanation in zip(seen["explainer"], said, strict=True)
        if explanation.status == "ok"
    ]
    given, controls = (shuffle(crowd, [0, side]) for side in (1, 2))
    return score_claims("dissect", seen, given, controls, catalog, simulator)


def test_shuffled_explanations_score_around_zero(shuffled):
    scores = [row["correlation"] for row in shuffled if row["correlation"] is not None]
    assert len(scores) > CROWD / 2
    assert abs(np.mean(scores)) < 3 * np.std(scores) / len(scores) ** 0.5
    assert abs(np.median(scores)) < 0.05


def test_of_shuffled_explanations_no_larger_share_than_q_beats_its_controls(shuffled):
    tested = [row["q"] for row in shuffled if row["q"] is not None]
    assert len(tested) > 1 / ScoreSettings().max_q
    assert np.mean(np.array(tested) <= ScoreSettings().max_q) <= ScoreSettings().max_q
