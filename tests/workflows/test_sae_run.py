"""A whole run over a random SAE: its planted latents come out as what they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from neuron_atlas.tasks.atlas import Atlas
from neuron_atlas.tasks.subject.hook_points import final_norm
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings
from tests.planting import TYPES, plant_latents
from tests.tasks.conftest import BUNDLED
from tests.workflows.runs import small_run

pytestmark = pytest.mark.slow
LAYER, LATENTS, K = 1, 64, 24
PATCHES = '(show|at the edge of) "{}"'
"""A latent along the mean of a color's patches is weaker at patches that differ from the mean."""
CLAIMS = {
    "red patches": [PATCHES.format("red")],
    "green patches": [PATCHES.format("green")],
    "the word circle": ['word "circle"'],
    "the word square": ['word "square"'],
    "red in both": [PATCHES.format("red"), 'word "red"'],
    "blue in both": [PATCHES.format("blue"), 'word "blue"'],
}
PROMOTED = {
    "red patches": " red",
    "green patches": " green",
    "the word circle": " circle",
    "the word square": " square",
    "red in both": " large",
    "blue in both": " blue",
    "never": " star",
}
"""The token that the decoder row of each planted latent promotes."""


@dataclass(frozen=True)
class Planted:
    """A finished run, and the latent of each name."""

    atlas: Atlas
    latents: dict[str, int]

    def row(self, table: str, name: str) -> dict[str, Any]:
        """The row of a planted latent."""
        (row,) = self.atlas.table(table).filter(neuron=self.latents[name]).collect().to_dicts()
        return row


@pytest.fixture(scope="module")
def planted(ray_of_two_cores, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("sae")
    subject = load_subject(SubjectSettings(model=str(BUNDLED)), threads=1)
    tokens = subject.processor.tokenizer
    # Each row of the inverse raises the logit of its token, and as good as no other.
    weight = subject.model.get_output_embeddings().weight * final_norm(subject).weight
    rows = torch.linalg.pinv(weight.detach().float()).T
    promoted = {
        name: rows[tokens(text, add_special_tokens=False).input_ids[0]]
        for name, text in PROMOTED.items()
    }
    latents = plant_latents(subject, folder / "saes", LAYER, promoted, LATENTS, K)
    small_run(
        folder / "out",
        "capture.hook_point=sae",
        f"capture.sae.path={folder / 'saes'}",
        f"capture.layers=[{LAYER}]",
        "capture.top_n=40",
        "evidence.random_samples=60",
        "effects=all",
        "effects.samples=60",
        "effects.ablations=0",
        "effects.faithful_neurons=8",
        "effects.faithful_samples=8",
        f"explain.neurons.only=[{','.join(f'{LAYER}:{one}' for one in latents.values())}]",
        data=("data.count=400",),
    )
    return Planted(Atlas.open(folder / "out"), latents)


def test_every_latent_is_a_neuron_of_the_layers_with_an_sae(planted):
    types = planted.atlas.table("types").collect()
    assert types["neuron"].to_list() == list(range(LATENTS))
    assert planted.atlas.layers == (LAYER,)


@pytest.mark.parametrize("name", TYPES)
def test_a_planted_latent_has_the_type_of_its_function(planted, name):
    assert planted.row("types", name)["type"] == TYPES[name]


@pytest.mark.parametrize("name", CLAIMS)
def test_its_explanation_names_its_function_and_predicts_it(planted, name):
    text = planted.row("explanations", name)["text"]
    assert all(re.search(claim, text) for claim in CLAIMS[name]), text
    scores = planted.atlas.table("scores").filter(neuron=planted.latents[name], tokens="all")
    (score,) = scores.collect().to_dicts()
    assert score["correlation"] > 0.7
    assert score["control_blind"] < score["correlation"] / 2


@pytest.mark.parametrize("name", PROMOTED)
def test_its_output_tokens_are_those_of_its_decoder_row(planted, name):
    row = planted.row("output_tokens", name)
    if TYPES[name] == "unknown":
        assert row["status"] == "never_active"
    else:
        assert row["promoted"][0] == PROMOTED[name]
        assert row["write"] == 1


@pytest.mark.parametrize("name", TYPES)
def test_its_effect_runs_through_the_tokens_that_it_is_active_at(planted, name):
    row = planted.row("effects", name)
    fires = {
        "visual": ("visual",),
        "text": ("text",),
        "multi-modal": ("visual", "text"),
        "unknown": (),
    }[TYPES[name]]
    for role in ("visual", "text"):
        assert (row[f"magnitude_{role}"] > 0) == (role in fires)
