"""Planted neurons with two conditions come out as what they are, word for word.

A planted neuron is a linear probe of one layer. It can separate a background color in one place
from the same color elsewhere, but hardly one object from another: both conditions of an object are
tested with made-up activations (explain/test_dissect.py).
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.select import NeuronChoice, select_neurons_to_explain
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from tests.one_process import capture, classify, describe, evidence, respond
from tests.planting import Function, plant

LAYER = 2
PLANTS = {
    "either word": Function(word="circle or square"),
    "a word before another": Function(word="is before large"),
    "either color": Function(patches="red or blue"),
    "a color in a half": Function(patches="gray in the top half"),
    "a color in a row": Function(patches="pink in the top row"),
    "a color in the other half": Function(patches="brown in the bottom half"),
}
CLAIMS = {
    "either word": 'The words "circle" or "square" in the text',
    "a word before another": 'The word "is" before "large" in the text',
    "either color": 'Image regions that show "blue" or "red"',
    "a color in a half": 'Image regions that show "gray" in the top half',
    "a color in a row": 'Image regions that show "pink" in the top row',
    "a color in the other half": 'Image regions that show "brown" in the bottom half',
}


MEANINGS = {
    "either word": 1,
    "a word before another": 1,
    "either color": 2,
    "a color in a half": 1,
    "a color in a row": 1,
    "a color in the other half": 1,
}
"""The texts use both words alike, but red patches are unlike blue ones."""


@dataclass(frozen=True)
class Found:
    """What is found of the planted neurons, by their names."""

    claims: dict[str, str]
    meanings: dict[str, int]


@pytest.fixture(scope="module")
def found(subject_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("formulas")
    neurons = plant(subject_folder, folder / "subject", LAYER, PLANTS)
    subject = load_subject(SubjectSettings(model=str(folder / "subject")), threads=1)
    scenes = Scenes(count=300, seed=72)
    described = describe(subject, scenes, folder, DescribeSettings(text_source="given"))
    capture(subject, described, [LAYER], CaptureSettings(shards=1, top_n=40), folder)
    only = tuple(f"{LAYER}:{neuron}" for neuron in neurons.values())
    types = select_neurons_to_explain(classify(folder, LAYER, PaperRule()), NeuronChoice(only=only))
    catalog = described.catalog()
    shown = evidence(subject, catalog, folder, types)["explainer"]
    said = Dissect().explain(shown, catalog, CallOptions())
    names = {neuron: name for name, neuron in neurons.items()}
    responses = respond(subject, folder, LAYER, catalog).to_pylist()
    return Found(
        {
            names[one.neuron]: explanation.text.split(" (r = ")[0]
            for one, explanation in zip(shown, said, strict=True)
        },
        {names[row["neuron"]]: row["meanings"] for row in responses if row["neuron"] in names},
    )


@pytest.mark.parametrize("name", PLANTS)
def test_dissect_names_both_conditions(found, name):
    assert found.claims[name] == CLAIMS[name]


@pytest.mark.parametrize("name", PLANTS)
def test_only_a_neuron_of_two_colors_has_two_meanings(found, name):
    assert found.meanings[name] == MEANINGS[name]
