"""A LoRA adapter of one neuron changes that neuron's rows of every table, and no other row."""

import pytest

from neuron_atlas.tasks.artifacts import HISTOGRAMS, MOMENTS, layer_file, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.lora import adapter_of_one_neuron
from tests.one_process import capture, describe, read_exemplars

LAYERS, TOP_N = (0, 1), 3
LAYER, NEURON = 1, 7


def rows(settings, folder):
    """The rows of each table and layer, by table and layer."""
    folder.mkdir()
    subject = load_subject(settings)
    given = DescribeSettings(text_source="given")
    described = describe(subject, Scenes(count=8, seed=3), folder, given)
    merged = capture(subject, described, LAYERS, CaptureSettings(top_n=TOP_N), folder / "captured")
    read = {("exemplars", layer): read_exemplars(merged, layer) for layer in LAYERS}
    for name, schema in (("moments", MOMENTS), ("histograms", HISTOGRAMS)):
        for layer in LAYERS:
            read[name, layer] = read_table(merged / layer_file(name, layer), schema)
    return {key: table.to_pylist() for key, table in read.items()}


@pytest.mark.parametrize("table", ["exemplars", "moments", "histograms"])
def test_only_the_rows_of_that_neuron_change(both, table):
    plain, adapted = both
    assert adapted[table, 0] == plain[table, 0]
    changed = {
        one["neuron"]
        for one, other in zip(plain[table, LAYER], adapted[table, LAYER], strict=True)
        if one != other
    }
    assert changed == {NEURON}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    model = str(build(BUILDS["llava"], folder / "llava"))
    adapter = str(adapter_of_one_neuron(folder / "llava", LAYER, NEURON, folder / "adapter"))
    return (
        rows(SubjectSettings(model=model), folder / "plain"),
        rows(SubjectSettings(model=model, adapter=adapter), folder / "changed"),
    )
