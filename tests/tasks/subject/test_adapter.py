"""A LoRA adapter changes the neurons that it was made for, and one for another model is refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from neuron_atlas.tasks.subject.adapter_files import adapter_digest
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.folder import check_subject_folder
from neuron_atlas.tasks.subject.hook_points import observing
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.lora import adapter_of_one_neuron

_LAYER, _NEURON = 1, 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(BUILDS["llava"], tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="module")
def plain(model):
    return load_subject(SubjectSettings(model=str(model)))


@pytest.fixture
def adapter(model, tmp_path) -> Path:
    return adapter_of_one_neuron(model, _LAYER, _NEURON, tmp_path / "adapter")


def activations(subject) -> dict[int, torch.Tensor]:
    image = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    sample = encode(subject, [image], "A cat and a red dog.")
    seen: dict[int, torch.Tensor] = {}
    with observing(subject, [0, _LAYER], "gate", seen.__setitem__), torch.inference_mode():
        forward_body(subject, batch_inputs([sample], len(sample.input_ids)))
    return {layer: part[0].clone() for layer, part in seen.items()}


def complaint(settings: SubjectSettings, call=load_subject) -> str:
    with pytest.raises(SubjectError) as caught:
        call(settings)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_an_adapter_of_one_neuron_changes_that_neuron_and_no_other(model, plain, adapter):
    settings = SubjectSettings(model=str(model), adapter=str(adapter))
    before, after = activations(plain), activations(load_subject(settings))
    assert torch.equal(before[0], after[0])
    changed = (before[_LAYER] != after[_LAYER]).any(0).nonzero()[:, 0].tolist()
    assert changed == [_NEURON]
    largest = (before[_LAYER] - after[_LAYER])[:, _NEURON].abs().max()
    assert largest > 1e-3


def test_the_content_of_an_adapter_decides_its_fingerprint(model, adapter, tmp_path):
    settings = SubjectSettings(model=str(model), adapter=str(adapter))
    first = adapter_digest(settings)
    (adapter / "README.md").write_text("other")
    moved = adapter.rename(tmp_path / "moved")
    settings = SubjectSettings(model=str(model), adapter=str(moved))
    assert adapter_digest(settings) == first
    weights = load_file(moved / "adapter_model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, moved / "adapter_model.safetensors")
    assert adapter_digest(settings) != first
    assert adapter_digest(SubjectSettings(model=str(model))) is None


def edit(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(folder: Path, old: str, new: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({k.replace(old, new): v for k, v in load_file(path).items()}, path)


def narrow(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({k: v[:, :24].clone() for k, v in weights.items()}, path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (narrow, "size mismatch"),
        (lambda one: edit(one, target_modules=["w1"]), "'w1'"),
        (lambda one: rename(one, "layers.1.", "layers.5."), "lacks"),
    ],
)
def test_an_adapter_for_another_model_is_refused_before_weights_are_read(
    model, adapter, change, named, monkeypatch
):
    change(adapter)
    monkeypatch.setattr(
        "neuron_atlas.tasks.subject.load.AutoModelForImageTextToText.from_pretrained", None
    )
    said = complaint(SubjectSettings(model=str(model), adapter=str(adapter)))
    assert said.startswith("subject.adapter: ")
    assert named in said
    assert "base_model_name_or_path in adapter_config.json" in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda one: (one / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda one: (one / "adapter_config.json").write_text("[]"), "is damaged"),
        (lambda one: edit(one, peft_type="IA3"), "peft_type 'IA3'"),
        (lambda one: (one / "adapter_model.safetensors").unlink(), "(adapter_model.safetensors)"),
        (lambda one: (one / "adapter_model.safetensors").write_text(""), "is damaged"),
    ],
)
def test_a_wrong_file_of_an_adapter_is_named_before_anything_is_loaded(
    model, adapter, change, named
):
    change(adapter)
    settings = SubjectSettings(model=str(model), adapter=str(adapter))
    said = complaint(settings, check_subject_folder)
    assert said.startswith("subject.adapter: ")
    assert named in said
    missing = SubjectSettings(model=str(model), adapter=f"{adapter}x")
    assert "there is no folder" in complaint(missing, check_subject_folder)
