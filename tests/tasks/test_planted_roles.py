"""The planted neurons once more, by simulators that predict the tokens of one role alone.

`clipseg` has a function of the pixels in its model's place; `prompt_logprobs` asks a provider that
tells of its prompts (see tests/loopback/listing.py).
"""

from collections.abc import Iterator

import pytest

from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.explain.select import NeuronChoice, select_neurons_to_explain
from neuron_atlas.tasks.models.client import ClientSettings
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.control import ExplainedNeuron, other_neurons
from neuron_atlas.tasks.simulate.heat_maps import HeatMaps
from neuron_atlas.tasks.simulate.prompt_logprobs import PromptLogprobs
from neuron_atlas.tasks.simulate.simulator import Simulator
from tests.loopback.fixture import Loopback
from tests.one_process import classify, evidence
from tests.tasks.color_segmenter import ColorSegmenter
from tests.tasks.test_planted import (
    CLAIMS,
    FIRING,
    LAYER,
    TYPES,
    WRONG,
    ByPurpose,
    Captured,
    Claims,
    captured,
    neurons,
    planted,
    planted_folder,
    score_claims,
)

__all__ = ["captured", "neurons", "planted", "planted_folder"]

pytestmark = pytest.mark.slow
SEEING = ("red patches", "green patches", "red in both", "blue in both")
READING = ("the word circle", "the word square", "red in both", "blue in both")


@pytest.fixture(scope="module")
def by_purpose(captured: Captured, neurons: dict[str, int]) -> ByPurpose:
    only = tuple(f"{LAYER}:{neuron}" for name, neuron in neurons.items() if name in FIRING)
    types = select_neurons_to_explain(
        classify(captured[0], LAYER, PaperRule()), NeuronChoice(only=only)
    )
    folder, catalog, subject = captured
    return evidence(subject, catalog, folder, types)


@pytest.fixture(scope="module")
def lister(loopback_process: Loopback) -> Iterator[PromptLogprobs]:
    client = ClientSettings(model="numbers-8b", base_url=loopback_process.base_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield PromptLogprobs(client=client, prices={"numbers-8b": Price(0, 0, date="2026-11-23")})


@pytest.fixture(scope="module")
def score(captured: Captured, neurons: dict[str, int], by_purpose: ByPurpose) -> "Score":
    return Score(captured[1], neurons, by_purpose)


class Score:
    """Scores of the right explanations, or of wrong ones, by neuron."""

    def __init__(self, catalog: Catalog, neurons: dict[str, int], by_purpose: ByPurpose) -> None:
        self._catalog, self._neurons, self._by_purpose = catalog, neurons, by_purpose

    def __call__(self, simulator: Simulator, tokens: str, wrong: bool = False) -> dict[str, dict]:
        names = {neuron: name for name, neuron in self._neurons.items()}
        controls = other_neurons(list(self._explained(CLAIMS).values()), seed=0)
        said = dict.fromkeys(FIRING, WRONG) if wrong else CLAIMS
        rows = score_claims(
            "told",
            self._by_purpose,
            self._explained(said),
            controls,
            self._catalog,
            simulator,
            tokens,
        )
        return {names[row["neuron"]]: row for row in rows}

    def _explained(self, said: dict[str, str]) -> Claims:
        return {
            (LAYER, self._neurons[name]): ExplainedNeuron(
                LAYER, self._neurons[name], TYPES[name], words
            )
            for name, words in said.items()
        }


def test_a_map_of_the_colour_itself_scores_as_the_truth_does(score):
    colors = HeatMaps(ColorSegmenter(), "clipseg", batch_size=64, feature_cache_gb=0.5)  # type: ignore[arg-type]
    right = score(colors, "visual")
    for name in SEEING:
        assert right[name]["correlation"] > 0.8
        assert right[name]["margin_low"] > 0.5


def test_listed_tokens_score_as_the_truth_does_and_wrong_words_do_not(score, lister):
    right, wrong = score(lister, "text"), score(lister, "text", wrong=True)
    for name in READING:
        assert right[name]["status"] == "ok"
        assert right[name]["correlation"] > 0.8
        assert right[name]["margin_low"] > 0.4
        assert abs(wrong[name]["correlation"]) < 0.1


def test_the_role_that_nothing_is_said_of_has_no_score(score, lister):
    for row in score(lister, "visual").values():
        assert row["status"] == "not_predicted"
        assert row["reason"] == "the simulator does not predict visual tokens"
        assert row["correlation"] is row["q"] is None
    text, whole = score(lister, "text"), score(lister, "all")
    for name in READING:
        assert whole[name]["correlation"] == text[name]["correlation"]
