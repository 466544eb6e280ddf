import pytest
import torch
from PIL import Image
from transformers import LlavaConfig, LlavaForConditionalGeneration

from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    decoder_layers,
    neurons_per_layer,
    observing,
)
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError, SubjectSettings

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


def test_an_ffn_without_a_gate_is_refused(subject, monkeypatch):
    monkeypatch.delattr(decoder_layers(subject)[2].mlp, "gate_proj")
    check_layers(subject, [0, 1, 3])
    with pytest.raises(SubjectError, match=r"layer 2 .* has no gated FFN"):
        check_layers(subject, [1, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"model_type": "phi"}, r"layer 0 .* has no gated FFN"),
        (
            {"model_type": "opt", "ffn_dim": 8, "word_embed_proj_dim": 8},
            "no list of decoder layers at `layers`",
        ),
    ],
)
def test_a_vlm_whose_language_model_has_no_gate_is_refused(subject, tmp_path, text, message):
    """LLaVA around Phi, whose FFN has no gate, and around OPT, which keeps its layers elsewhere."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {**sizes, "intermediate_size": 8, "image_size": 16, "patch_size": 8}
    config = LlavaConfig(
        text_config={
            "tie_word_embeddings": False,
            **text,
            **sizes,
            "intermediate_size": 8,
            "vocab_size": 512,
        },
        vision_config={"model_type": "clip_vision_model", **vision},
        image_token_index=subject.image_token_id,
        tie_word_embeddings=False,
    )
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    subject.processor.save_pretrained(tmp_path)
    gateless = load_subject(SubjectSettings(model=str(tmp_path)))
    with pytest.raises(SubjectError, match=message):
        check_layers(gateless, [0])
