import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    MllamaConfig,
)

from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings


def loaded(folder: Path, **settings: object) -> object:
    return load_subject(SubjectSettings(model=str(folder), **settings))  # type: ignore[arg-type]


def complaint(folder: Path) -> str:
    with pytest.raises(SubjectError) as caught:
        loaded(folder)
    return str(caught.value)


@pytest.fixture
def copy(subject_folder, tmp_path) -> Path:
    return Path(shutil.copytree(subject_folder, tmp_path / "copy"))


def test_a_subject_is_ready_to_be_asked(subject):
    assert not subject.model.training
    assert subject.model.dtype == torch.float32
    assert subject.image_token == "<image>"
    assert subject.processor.tokenizer.convert_tokens_to_ids("<image>") == subject.image_token_id


@pytest.mark.parametrize("elsewhere", ["cpu", "disk"])
def test_a_subject_of_which_a_part_stays_in_host_memory_is_refused(
    subject_folder, monkeypatch, elsewhere
):
    places = {"model.layers.0": 0, "model.layers.1": elsewhere}
    monkeypatch.setattr(LlavaForConditionalGeneration, "hf_device_map", places, raising=False)
    with pytest.raises(SubjectError, match=r"does not fit on 1 GPU.*raise cluster\.gpus_per_actor"):
        loaded(subject_folder)


def test_weights_are_held_in_the_number_format_asked_for(subject_folder):
    assert loaded(subject_folder, dtype="bfloat16").model.dtype == torch.bfloat16


def test_threads_are_set_only_where_asked(subject_folder):
    before = torch.get_num_threads()
    try:
        load_subject(SubjectSettings(model=str(subject_folder)), threads=2)
        assert torch.get_num_threads() == 2
        loaded(subject_folder)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert f"no folder {str(tmp_path / 'none')!r}" in complaint(tmp_path / "none")


def test_a_folder_without_a_model_is_named_in_one_line(tmp_path):
    said = complaint(tmp_path)
    assert said.startswith(f"subject.model: {str(tmp_path)!r} cannot be loaded: ")
    assert "\n" not in said


def test_weights_that_are_no_safetensors_are_not_opened(copy):
    weights = load_file(copy / "model.safetensors")
    torch.save(weights, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert "cannot be loaded" in complaint(copy)


def test_code_that_a_model_brings_along_is_not_run(copy):
    proof = copy.parent / "it-ran"
    (copy / "modeling.py").write_text(
        f"open({str(proof)!r}, 'w')\n"
        "from transformers import LlavaConfig as Config\n"
        "from transformers import LlavaForConditionalGeneration as Model\n"
    )
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling.Config",
        "AutoModelForImageTextToText": "modeling.Model",
    }
    (copy / "config.json").write_text(json.dumps(config))
    assert type(loaded(copy).model).__module__.startswith("transformers.")
    assert not proof.exists()


def test_a_model_that_sees_no_images_is_refused(tmp_path):
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert "is a 'llama' model without a vision tower" in complaint(tmp_path)


def test_a_type_without_visual_tokens_is_refused_by_name_and_reason(tmp_path):
    MllamaConfig().save_pretrained(tmp_path)
    said = complaint(tmp_path)
    assert "is a 'mllama' model whose decoder reads image features by cross-attention" in said
    assert "\n" not in said


def test_weights_that_were_cut_off_are_named(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert complaint(copy).startswith(f"subject.model: {path} is damaged (")
    assert complaint(copy).endswith("; save or download it again")


@pytest.mark.parametrize("place", [3, 8])
def test_weights_with_a_flipped_bit_in_their_header_are_named(copy, place):
    """Byte 3 is of the header's length, byte 8 the brace that opens it."""
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    said = complaint(copy)
    assert said.startswith(f"subject.model: {path} is damaged (")
    assert "\n" not in said


def test_weights_with_a_flipped_bit_in_a_name_are_not_filled_up_with_random_ones(copy):
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    place = content.index(b"layers.2.mlp.gate_proj")
    content[place + len(b"layers.")] ^= 8
    path.write_bytes(content)
    said = complaint(copy)
    assert "lack 'model.language_model.layers.2.mlp.gate_proj.weight'; save or download" in said


def test_weights_that_lack_a_part_are_refused(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    kept = {name: part for name, part in weights.items() if "multi_modal_projector" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    assert "lack 'model.multi_modal_projector.linear_1.bias' and 3 more" in complaint(copy)
