"""Quantized checkpoints: loaded, hooked and read as their dequantized weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.output_tokens import output_tokens
from neuron_atlas.tasks.subject import quantization
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.batches import collate
from neuron_atlas.tasks.subject.dense_weight import dense_weight
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.folder import check_subject_folder
from neuron_atlas.tasks.subject.hook_points import ffn_of, observing
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.quantization import quantization_name, subject_quantization
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings
from neuron_atlas.workflows.run.context import Context
from tests.families.lora import adapter_of_one_neuron
from tests.families.quantized import (
    build_wide,
    save_awq,
    save_bitsandbytes,
    save_fp8,
    save_gptq,
    save_int4,
    save_torchao,
)

LAYER = 1
PICTURE = Image.linear_gradient("L").resize((48, 32)).convert("RGB")

FORMATS: dict[str, tuple[str, str, Callable[[Path, Path], Path], float]] = {
    "fp8": ("torch", "fp8, 8 bits", save_fp8, 0.04),
    "int4": ("compressed_tensors", "compressed-tensors, 4 bits", save_int4, 0.08),
    "gptq": ("gptqmodel", "gptq, 4 bits", save_gptq, 0.08),
    "awq": ("gptqmodel", "awq, 4 bits", save_awq, 0.08),
    "nf4": (
        "bitsandbytes",
        "bitsandbytes, 4 bits",
        lambda source, folder: save_bitsandbytes(source, folder, 4),
        0.16,
    ),
    "int8": (
        "bitsandbytes",
        "bitsandbytes, 8 bits",
        lambda source, folder: save_bitsandbytes(source, folder, 8),
        0.01,
    ),
    "torchao": ("torchao", "torchao, 8 bits", save_torchao, 0.01),
}
"""By format: its package, its name in the fingerprint, and the largest error of a weight as a share
of the largest weight."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wide(tmp_path_factory.mktemp("plain") / "llava")


@pytest.fixture(scope="module", params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    package = FORMATS[request.param][0]
    pytest.importorskip(package, reason=f"needs the package {package}")
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FORMATS[kind][2](plain, tmp_path_factory.mktemp(kind) / "quantized")


@pytest.fixture(scope="module")
def subject(folder: Path, kind: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        if kind == "gptq":  # Its package compiles a step of its layers, which takes minutes.
            patch.setattr("torch._dynamo.config.disable", True)
        yield load_subject(SubjectSettings(model=str(folder)))


def test_the_weights_are_the_models_up_to_their_rounding(subject, plain, kind):
    original = ffn_of(load_subject(SubjectSettings(model=str(plain))), LAYER).down.weight
    found = dense_weight(ffn_of(subject, LAYER).down, subject.model.dtype).float()
    assert found.shape == original.shape
    largest = original.abs().max()
    error = ((found - original).abs().max() / largest).item()
    assert 1e-4 < error < FORMATS[kind][3]


def test_the_dense_weight_is_what_the_layer_computes_with(subject):
    down = ffn_of(subject, LAYER).down
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, down.in_features, generator=generator)
    dense = dense_weight(down, subject.model.dtype).float()
    with torch.no_grad():
        # Layers that also round activations differ by a hundredth of the output's scale.
        torch.testing.assert_close(down(x).float(), x @ dense.T, rtol=0.02, atol=0.1)


def gates(subject: Any) -> dict[int, torch.Tensor]:
    """The activations of both layers on one sample."""
    sample = encode(subject, [PICTURE], "A cat and a red dog.")
    seen: dict[int, torch.Tensor] = {}
    with observing(subject, [0, LAYER], "gate", seen.__setitem__), torch.inference_mode():
        forward_body(subject, batch_inputs([sample], len(sample.input_ids)))
    return {layer: activations.clone() for layer, activations in seen.items()}


def test_activations_are_hooked(subject):
    for activations in gates(subject).values():
        assert activations.shape[::2] == (1, 256)
        assert activations.isfinite().all()
        assert activations.std() > 0


def test_effects_have_gradients_and_neurons_output_tokens(subject):
    batch = collate([0], [encode(subject, [PICTURE], "A cat and a red dog.")])
    with watching(subject, [0, LAYER], "gate") as run:
        products = run(batch)[0].products
    assert products.isfinite().all()
    assert products.abs().max() > 0
    rows = output_tokens(subject, LAYER, torch.ones(4, 256).numpy(), "gate", 3).to_pylist()
    assert all(row["status"] == "ok" and len(row["promoted"]) == 3 for row in rows)


def test_the_fingerprint_names_method_and_bits(folder, plain, kind):
    settings = SubjectSettings(model=str(folder))
    identity = Context(SimpleNamespace(subject=settings), None).subject_identity()  # type: ignore[arg-type]
    assert identity["quantization"] == FORMATS[kind][1]
    assert subject_quantization(SubjectSettings(model=str(plain))) is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq, 4 bits"),
        ({"quant_method": "awq", "w_bit": 4}, "awq, 4 bits"),
        ({"load_in_4bit": True, "load_in_8bit": False}, "bitsandbytes, 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "quanto", "weights": "int2"}, "quanto, 2 bits"),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao, 4 bits"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "a": {"weights": {"num_bits": 8, "type": "float"}},
                    "b": {"weights": {"num_bits": 4}, "input_activations": {"num_bits": 16}},
                },
            },
            "compressed-tensors, 4 and 8 bits",
        ),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3}}}, "hqq, 3"),
        ({"quant_method": "vptq"}, "vptq"),
    ],
)
def test_a_quantization_is_named_by_method_and_bits(settings, name):
    for config in (
        {"quantization_config": settings},
        {"text_config": {"quantization_config": settings}},
    ):
        found = quantization_name(config)
        assert found is not None
        assert found.startswith(name)
    assert quantization_name({"model_type": "llava"}) is None


def with_quantization(source: Path, settings: dict[str, Any]) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": settings}))


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"quant_method": "gptq", "bits": 4}, "(gptq, 4 bits).*pip install gptqmodel optimum"),
        ({"quant_method": "awq", "bits": 4}, "(awq, 4 bits).*pip install gptqmodel optimum"),
        ({"load_in_4bit": True}, "(bitsandbytes, 4 bits).*pip install bitsandbytes"),
        ({"quant_method": "quanto", "weights": "int8"}, "8 bits).*pip install optimum-quanto"),
        ({"quant_method": "compressed-tensors"}, "pip install compressed-tensors"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_loaded(
    tmp_path, monkeypatch, settings, remedy
):
    model = build_wide(tmp_path / "llava")
    with_quantization(model, settings)
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    pattern = remedy.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(SubjectError, match=pattern):
        check_subject_folder(SubjectSettings(model=str(model)))


def test_a_method_that_transformers_would_ignore_is_refused(tmp_path):
    model = build_wide(tmp_path / "llava")
    with_quantization(model, {"quant_method": "mine", "bits": 4})
    with pytest.raises(SubjectError, match="quant_method 'mine', which transformers does not read"):
        load_subject(SubjectSettings(model=str(model)))


def test_weights_in_gguf_are_refused_with_the_reason(tmp_path):
    model = build_wide(tmp_path / "llava")
    (model / "model.safetensors").rename(model / "model-Q4_K_M.gguf")
    with pytest.raises(SubjectError, match=r"GGUF \(model-Q4_K_M.gguf\).*without a vision tower"):
        check_subject_folder(SubjectSettings(model=str(model)))


def test_an_adapter_of_one_neuron_changes_that_neuron_only(folder, subject, plain, tmp_path):
    """Next to the quantized weights, into which it is not merged."""
    adapter = adapter_of_one_neuron(plain, LAYER, 7, tmp_path / "adapter")
    adapted = load_subject(SubjectSettings(model=str(folder), adapter=str(adapter)))
    before, after = (gates(one)[LAYER] for one in (subject, adapted))
    changed = (before - after).abs().amax((0, 1)) > 1e-3
    assert changed.nonzero()[:, 0].tolist() == [7]
