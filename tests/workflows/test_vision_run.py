"""A whole run over the vision tower: planted neurons come out as what they are."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from neuron_atlas.tasks.atlas import Atlas
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.run.errors import ConfigError
from tests.planting import Function, plant_in_tower
from tests.tasks.conftest import BUNDLED
from tests.workflows.runs import composed, small_run

LAYER = 1
PLANTS = {
    "red patches": Function(patches="red"),
    "green patches": Function(patches="green"),
    "never": Function(),
}
VISION = ("capture.hook_point=vision", "capture.peak_roles=[visual]")


@dataclass(frozen=True)
class Planted:
    """A finished run, and the neuron of each name."""

    atlas: Atlas
    neurons: dict[str, int]


@pytest.fixture(scope="module")
def planted(ray_of_two_cores, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("tower")
    neurons = plant_in_tower(BUNDLED, folder / "subject", LAYER, PLANTS)
    small_run(
        folder / "out",
        *VISION,
        f"subject.model={folder / 'subject'}",
        f"capture.layers=[{LAYER}]",
        f"explain.neurons.only=[{','.join(f'{LAYER}:{one}' for one in neurons.values())}]",
        data=("data.count=200",),
    )
    return Planted(Atlas.open(folder / "out"), neurons)


@pytest.mark.slow
def test_its_neurons_are_visual_or_unknown(planted):
    types = planted.atlas.table("types").collect()
    assert set(types["type"]) <= {"visual", "unknown"}
    by_neuron = dict(zip(types["neuron"], types["type"], strict=True))
    found = {name: by_neuron[neuron] for name, neuron in planted.neurons.items()}
    assert found == {"red patches": "visual", "green patches": "visual", "never": "unknown"}


@pytest.mark.slow
@pytest.mark.parametrize("color", ["red", "green"])
def test_its_explanation_names_its_patches_and_predicts_them(planted, color):
    neuron = planted.neurons[f"{color} patches"]
    tables = (
        planted.atlas.table(name).filter(neuron=neuron) for name in ("explanations", "scores")
    )
    explained, scored = (table.collect() for table in tables)
    assert f'show "{color}"' in explained["text"][0]
    (score,) = scored.filter(tokens="visual").to_dicts()
    assert score["correlation"] > 0.7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("capture.hook_point=vision",),
            r"peak_roles: vision has .*; set capture.peak_roles=\[vis",
        ),
        (
            (*VISION, "effects=all"),
            r"are read, and not changed\. Set effects=none, groups.samples=0",
        ),
        ((*VISION, "groups.samples=0"), r"changed\. Set steering.neurons_per_type=0$"),
    ],
)
def test_what_changes_neurons_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        read_settings(composed(*overrides))
