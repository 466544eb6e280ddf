"""Model folders that people have: each fault is one line that names the file and the field."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from neuron_atlas.tasks.subject.encode import question_prompt
from neuron_atlas.tasks.subject.folder import check_subject_folder
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.probe import nonfinite_shares
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.wide import WIDE

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in ("llava", "qwen2_5_vl"):
        build(BUILDS[family], folder / family)
    build(WIDE["paligemma"], folder / "paligemma")
    return folder


@pytest.fixture
def model(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "llava", tmp_path / "model"))


def remove(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def edit(name: str, **changes: Any) -> Change:
    """Change fields of a JSON file, such as text_config__vocab_size; None removes a field."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        for path, value in changes.items():
            *parents, field = path.split("__")
            group = content
            for parent in parents:
                group = group[parent]
            group.pop(field) if value is None else group.update({field: value})
        (folder / name).write_text(json.dumps(content))

    return change


def in_parts(index: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(index)

    return change


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def complaint(call: Callable[[], object]) -> str:
    with pytest.raises(SubjectError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (remove("config.json"), "no config.json"),
        (write("config.json", '{"a": '), "config.json is damaged"),
        (write("config.json", "[]"), "config.json is damaged"),
        (edit("config.json", model_type=None), "config.json has no model_type"),
        (edit("config.json", vision_config=None), "config.json has no vision_config"),
        (edit("config.json", text_config=None), "config.json has no text_config"),
        (
            edit("config.json", mm_vision_tower="openai/clip"),
            "name its conversion, such as llava-hf/",
        ),
        (
            edit("config.json", model_type="llava_llama", mm_vision_tower="x", vision_config=None),
            "a checkpoint of LLaVA's original code",
        ),
        (remove("tokenizer.json"), "no tokenizer (tokenizer.json)"),
        (write("tokenizer.json", '{"a": '), "tokenizer.json is damaged"),
        (write("tokenizer_config.json", '{"a": '), "tokenizer_config.json is damaged"),
        (remove("processor_config.json"), "neither preprocessor_config.json nor image_processor"),
        (edit("processor_config.json", image_processor=None), "nor image_processor in processor"),
        (write("processor_config.json", "oops"), "processor_config.json is damaged"),
        (remove("model.safetensors"), "no weights in safetensors (model.safetensors)"),
        (write("tokenizer.json", '{"a": 1}'), "tokenizer.json has no model"),
        (
            lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff\xfe"),
            "chat_template.jinja is damaged",
        ),
        (cut, "model.safetensors is damaged"),
        (write("model.safetensors", ""), "model.safetensors is damaged"),
        (in_parts('{"weight_map": '), "model.safetensors.index.json is damaged"),
        (in_parts('{"a": 1}'), "model.safetensors.index.json has no weight_map"),
        (
            in_parts('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'),
            "index.json lists model-00002-of-00002.safetensors, which is missing",
        ),
        (write("adapter_config.json", '{"peft_type": "LORA"}'), "holds an adapter (adapter_config"),
        (remove("chat_template.jinja"), "no chat template (chat_template.jinja)"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named_before_anything_is_loaded(model, change, named):
    settings = SubjectSettings(model=str(model))
    check_subject_folder(settings)
    change(model)
    said = complaint(lambda: check_subject_folder(settings))
    assert said.startswith("subject.model: ")
    assert named in said
    assert complaint(lambda: load_subject(settings)) == said


def test_the_remedies_of_an_adapter_and_of_a_missing_template_are_named(model):
    settings = SubjectSettings(model=str(model))
    (model / "chat_template.jinja").unlink()
    assert "subject.chat_template" in complaint(lambda: check_subject_folder(settings))
    (model / "adapter_config.json").write_text("{}")
    said = complaint(lambda: check_subject_folder(settings))
    assert "merge_and_unload" in said
    assert "subject.adapter" in said


def test_a_template_file_takes_the_place_of_a_missing_one(model, tmp_path):
    text = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").unlink()
    mine = tmp_path / "mine.jinja"
    mine.write_text(text.replace("USER: ", "PERSON: "))
    subject = load_subject(SubjectSettings(model=str(model), chat_template=str(mine)))
    assert question_prompt(subject).startswith("<s>PERSON: ")
    mine.unlink()
    settings = SubjectSettings(model=str(model), chat_template=str(mine))
    assert complaint(lambda: check_subject_folder(settings)).startswith(
        f"subject.chat_template: {str(mine)!r} cannot be read"
    )


def lacks_part(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: part for name, part in weights.items() if "lm_head" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    edit("config.json", architectures=["LlavaLlamaForCausalLM"])(folder)


def with_adapter_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gate = next(name for name in weights if "layers.0.mlp.gate_proj" in name)
    weights[gate.replace("gate_proj", "gate_proj.lora_A")] = weights[gate][:4].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edit("processor_config.json", patch_size=None), "processor_config.json lacks patch_size"),
        (
            edit("processor_config.json", num_additional_image_tokens=None),
            "processor_config.json lacks num_additional_image_tokens",
        ),
        (
            edit("processor_config.json", vision_feature_select_strategy=None),
            "processor_config.json lacks vision_feature_select_strategy",
        ),
        (edit("processor_config.json", patch_size=16), "correct processor_config.json (patch_size"),
        (edit("config.json", text_config__vocab_size=10), "text_config.vocab_size 10"),
        (edit("config.json", text_config__hidden_size=64), "text_config.hidden_size 64"),
        (edit("config.json", text_config__hidden_size="x"), "hidden_size"),
        (edit("config.json", text_config__num_hidden_layers=1), "text_config.num_hidden_layers"),
        (edit("config.json", model_type="nonsense"), "'nonsense' of"),
        (edit("config.json", model_type="idefics3"), "Idefics3ForConditionalGeneration: they lack"),
        (lacks_part, "architectures LlavaLlamaForCausalLM"),
        (with_adapter_weights, "merge the adapter"),
        (write("chat_template.jinja", "{% for"), "name another template file in subject.chat_temp"),
        (write("chat_template.jinja", "{{ messages[9].x.y }}"), "in subject.chat_template"),
        (write("chat_template.jinja", "{{ messages[-1]['content'][-1]['text'] }}"), "leaves out"),
    ],
)
def test_a_field_that_does_not_fit_is_named_when_the_model_is_loaded(model, change, named):
    change(model)
    said = complaint(lambda: load_subject(SubjectSettings(model=str(model))))
    assert named in said
    assert "Traceback" not in said


@pytest.mark.parametrize("geometry", ["known", "none"])
@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("llava", edit("config.json", image_token_index=9), "has the id 9 in config.json, and"),
        ("paligemma", edit("config.json", image_token_index=9), "has the id 9 in config.json, and"),
        ("llava", edit("processor_config.json", num_additional_image_tokens=5), "image_tokens 5"),
        (
            "paligemma",
            edit("processor_config.json", image_processor__image_seq_length=32),
            "correct processor_config.json",
        ),
    ],
)
def test_a_processor_that_disagrees_with_its_model_is_one_line_for_every_type(
    models, tmp_path, kind, geometry, change, named
):
    """For types with a function of their own and without, with a layout and without."""
    model = Path(shutil.copytree(models / kind, tmp_path / "model"))
    change(model)
    settings = SubjectSettings(model=str(model), geometry=geometry)
    assert named in complaint(lambda: load_subject(settings))


@pytest.mark.parametrize("names", [["processor_config.json"], ["tokenizer.json"]])
def test_files_of_another_family_are_refused(models, model, names):
    for name in names:
        shutil.copy(models / "qwen2_5_vl" / name, model / name)
    complaint(lambda: load_subject(SubjectSettings(model=str(model))))


def test_a_vocabulary_that_is_smaller_than_the_ids_is_refused(model):
    """As of a model whose embeddings were cut, and whose weights fit its config.json."""
    weights = load_file(model / "model.safetensors")
    for name in weights:
        if "embed_tokens" in name or "lm_head" in name:
            weights[name] = weights[name][:60].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    edit("config.json", text_config__vocab_size=60)(model)
    said = complaint(lambda: load_subject(SubjectSettings(model=str(model))))
    assert "tokenizer.json" in said
    assert "embeddings for 60 tokens (text_config.vocab_size in config.json)" in said


def test_a_model_that_cannot_process_its_own_processors_image_is_one_line(model):
    subject = load_subject(SubjectSettings(model=str(model)))
    subject.model.model.multi_modal_projector.linear_1.in_features = 7
    subject.model.model.multi_modal_projector.linear_1.weight.data = (
        subject.model.model.multi_modal_projector.linear_1.weight.data[:, :7]
    )
    said = complaint(lambda: nonfinite_shares(subject, [0], "gate"))
    assert "cannot process a small image" in said
    assert "config.json" in said


def test_an_original_llava_on_the_hub_is_refused_before_it_is_loaded(monkeypatch):
    raw = {"model_type": "llava", "mm_vision_tower": "x", "image_aspect_ratio": "anyres"}
    monkeypatch.setattr(
        "neuron_atlas.tasks.subject.load.PreTrainedConfig.get_config_dict",
        lambda name, revision: (raw, {}),
    )
    said = complaint(lambda: load_subject(SubjectSettings(model="owner/llava")))
    assert "llava-hf/llava-v1.6-mistral-7b-hf" in said
