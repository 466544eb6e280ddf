import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    decoder_layers,
    hooking,
    neurons_per_layer,
    observing,
)
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.probe import nonfinite_shares
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError
from tests.small_llava import llava_around

PICTURE = Image.new("RGB", (64, 64), (10, 200, 30))
LAYERS = [0, 2, 3]


def forward(subject: Subject) -> None:
    encoded = encode(subject, [PICTURE], "There is a large green square.")
    with torch.no_grad():
        forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))


def observed(subject: Subject, hook_point: HookPoint) -> dict[int, torch.Tensor]:
    seen: dict[int, torch.Tensor] = {}
    with observing(subject, LAYERS, hook_point, lambda layer, values: seen.update({layer: values})):
        forward(subject)
    return seen


@pytest.fixture(scope="module")
def ffn_inputs(subject: Subject) -> dict[int, torch.Tensor]:
    """What the FFN of each layer reads, recorded without the code under test."""
    inputs: dict[int, torch.Tensor] = {}
    handles = [
        decoder_layers(subject)[layer].mlp.register_forward_pre_hook(
            lambda _, args, layer=layer: inputs.update({layer: args[0]})
        )
        for layer in LAYERS
    ]
    forward(subject)
    for handle in handles:
        handle.remove()
    return inputs


def hooks(subject: Subject) -> int:
    modules = subject.model.modules()
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in modules)


def test_gate_is_the_activation_function_of_the_gate_projection(subject, ffn_inputs):
    seen = observed(subject, "gate")
    assert list(seen) == LAYERS
    for layer, inputs in ffn_inputs.items():
        gate = inputs @ decoder_layers(subject)[layer].mlp.gate_proj.weight.detach().T
        torch.testing.assert_close(seen[layer], gate * torch.sigmoid(gate))


def test_gate_up_is_the_gate_times_the_up_projection(subject, ffn_inputs):
    seen = observed(subject, "gate_up")
    assert list(seen) == LAYERS
    for layer, inputs in ffn_inputs.items():
        mlp = decoder_layers(subject)[layer].mlp
        gate = inputs @ mlp.gate_proj.weight.detach().T
        up = inputs @ mlp.up_proj.weight.detach().T
        torch.testing.assert_close(seen[layer], gate * torch.sigmoid(gate) * up)


def test_an_observation_has_a_value_for_every_token_and_neuron(subject):
    tokens = len(encode(subject, [PICTURE], "There is a large green square.").input_ids)
    assert observed(subject, "gate")[0].shape == (1, tokens, 512)
    assert neurons_per_layer(subject) == 512


def test_nothing_is_observed_once_the_context_is_left(subject):
    seen: list[int] = []
    with observing(subject, LAYERS, "gate", lambda layer, _: seen.append(layer)):
        forward(subject)
    forward(subject)
    assert seen == LAYERS


@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
def test_hooks_are_removed_after_an_error(subject, hook_point):
    before = hooks(subject)

    def fail(_layer: int, _values: torch.Tensor) -> None:
        raise RuntimeError("out of memory")

    with (
        pytest.raises(RuntimeError, match="out of memory"),
        observing(subject, LAYERS, hook_point, fail),
    ):
        forward(subject)
    assert hooks(subject) == before


def test_hooks_are_removed_where_only_some_could_be_set(subject, monkeypatch):
    before = hooks(subject)

    def fail(_hook: object) -> None:
        raise RuntimeError("no more hooks")

    last = decoder_layers(subject)[LAYERS[-1]].mlp.act_fn
    monkeypatch.setattr(last, "register_forward_hook", fail)
    with (
        pytest.raises(RuntimeError, match="no more hooks"),
        observing(subject, LAYERS, "gate", lambda *_: None),
    ):
        pass
    assert hooks(subject) == before


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_does_not_exist_is_refused_by_name(subject, layer):
    with pytest.raises(SubjectError, match=rf"no layer {layer}; .* has layers 0 to 3"):
        check_layers(subject, [0, layer])


def test_an_activation_function_without_a_module_is_refused(subject, monkeypatch):
    monkeypatch.delattr(decoder_layers(subject)[2].mlp, "act_fn")
    check_layers(subject, [0, 1, 3])
    check_layers(subject, [1, 2], "gate_up")
    with pytest.raises(
        SubjectError, match=r"FFN of layer 2 .* without a module.*hook_point=gate_up"
    ):
        check_layers(subject, [1, 2])


def test_a_layer_without_an_ffn_is_refused(subject, monkeypatch):
    monkeypatch.delattr(decoder_layers(subject)[2].mlp, "down_proj")
    with pytest.raises(SubjectError, match=r"layer 2 .* has no FFN that is recognized"):
        check_layers(subject, [1, 2])


def seen_at(subject: Subject, hook_point: HookPoint) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    with observing(subject, [0], hook_point, lambda _, values: seen.append(values)):
        forward(subject)
    return seen[0][0]


def read_by(subject: Subject, module: torch.nn.Module) -> torch.Tensor:
    """What a module of the subject reads: [tokens, width]."""
    read: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    forward(subject)
    handle.remove()
    return read[0].reshape(-1, read[0].shape[-1])


def test_a_fused_gate_is_split_as_the_model_splits_it(subject, tmp_path):
    fused = llava_around(subject, tmp_path, {"model_type": "phi3"})
    mlp = decoder_layers(fused)[0].mlp
    gate, up = (read_by(fused, mlp) @ mlp.gate_up_proj.weight.detach().T).chunk(2, dim=-1)
    torch.testing.assert_close(seen_at(fused, "gate"), torch.nn.functional.silu(gate))
    torch.testing.assert_close(seen_at(fused, "gate_up"), torch.nn.functional.silu(gate) * up)
    assert neurons_per_layer(fused) == 24


@pytest.mark.parametrize(
    "text",
    [
        {"model_type": "phi", "hidden_act": "relu"},
        {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 8},
    ],
)
def test_an_ffn_without_a_gate_has_its_activation_function_as_both(subject, tmp_path, text):
    """Phi, and OPT, whose layer itself holds the parts of its FFN."""
    plain = llava_around(subject, tmp_path, text)
    (layer,) = decoder_layers(plain)
    fc1 = layer.fc1 if hasattr(layer, "fc1") else layer.mlp.fc1
    expected = torch.relu(fc1(read_by(plain, fc1))).detach()
    for hook_point in ("gate", "gate_up"):
        seen = seen_at(plain, hook_point)
        torch.testing.assert_close(seen.reshape(expected.shape), expected)
    assert neurons_per_layer(plain) == 24


def test_activations_of_several_samples_in_one_dimension_are_told_apart(subject, tmp_path):
    text = {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 8}
    flat = llava_around(subject, tmp_path, text)
    samples = [encode(flat, [Image.new("RGB", (64, 64), color)], "a") for color in ("red", "blue")]
    inputs = batch_inputs(samples, len(samples[0].input_ids))
    read: list[torch.Tensor] = []

    def raised(activations: torch.Tensor) -> torch.Tensor:
        changed = activations.clone()
        changed[1, :, 3] = 9
        return changed

    for see in (lambda _: None, raised):
        with (
            hooking(flat, 0, "gate", see),
            observing(flat, [0], "gate_up", lambda _, values: read.append(values)),
            torch.inference_mode(),
        ):
            forward_body(flat, inputs)
    before, after = read
    assert before.shape == after.shape == (2, len(samples[0].input_ids), 24)
    assert (after[1, :, 3] == 9).all()
    changed = before.clone()
    changed[1, :, 3] = 9
    torch.testing.assert_close(after, changed)


def test_a_module_whose_output_is_no_vector_per_token_is_refused(subject, tmp_path):
    text = {"model_type": "qwen3", "head_dim": 8, "num_key_value_heads": 1}
    with_heads = llava_around(subject, tmp_path, text)
    for path in ("self_attn.q_proj", "self_attn"):
        assert nonfinite_shares(with_heads, [0], f"module:{path}") == {0: 0}
    with pytest.raises(SubjectError, match=r"^capture.hook_point: module:self_attn.q_norm of lay"):
        nonfinite_shares(with_heads, [0], "module:self_attn.q_norm")


def test_the_output_of_a_module_is_replaced_where_it_is_the_first_of_several(subject):
    block = decoder_layers(subject)[1]
    with hooking(subject, 1, "module:self_attn", torch.zeros_like):
        torch.testing.assert_close(
            read_by(subject, block.post_attention_layernorm),
            read_by(subject, block.input_layernorm),
        )


def test_a_mixture_of_experts_that_is_not_recognized_is_refused_by_name(subject, monkeypatch):
    block = decoder_layers(subject)[0].mlp
    monkeypatch.setattr(block, "experts", torch.nn.ModuleList(), raising=False)
    with pytest.raises(SubjectError, match=r"layer 0 of .* is a mixture of experts \(LlamaMLP\)"):
        check_layers(subject, [0])
    check_layers(subject, [0], "module:mlp")


def test_a_module_is_read_by_its_path(subject, ffn_inputs):
    seen = observed(subject, "module:mlp.up_proj")
    assert list(seen) == LAYERS
    for layer, inputs in ffn_inputs.items():
        up = inputs @ decoder_layers(subject)[layer].mlp.up_proj.weight.detach().T
        torch.testing.assert_close(seen[layer], up)
    assert neurons_per_layer(subject, "module:mlp.up_proj") == 512
    assert neurons_per_layer(subject, "module:mlp") == observed(subject, "module:mlp")[0].shape[-1]
    with pytest.raises(SubjectError, match=r"no module 'mlp.middle'; it has self_attn"):
        check_layers(subject, [0], "module:mlp.middle")
