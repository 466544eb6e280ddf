"""Neurons of mixtures of experts: their activations are those of the tokens routed to them."""

import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import ExpertLayout
from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.effects.output_tokens import write_directions
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch, collate
from neuron_atlas.tasks.subject.encode import TEXT, encode
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    decoder_layers,
    expert_layouts,
    neurons_per_layer,
    observing,
)
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError, SubjectSettings
from tests.families.building import build
from tests.families.further import FURTHER
from tests.families.pictures import PICTURES, TEXT_SAID
from tests.small_llava import llava_around

EXPERTS, WIDTH, SHARED = 4, 16, 12
MIXTURE = {
    "model_type": "qwen2_moe",
    "num_key_value_heads": 1,
    "decoder_sparse_step": 1,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": SHARED,
}
LLAMA4 = {
    "model_type": "llama4_text",
    "head_dim": 8,
    "num_key_value_heads": 1,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "intermediate_size": WIDTH,
    "interleave_moe_layer_step": 1,
}
ONE_HEAD = {"num_key_value_heads": 1, "num_experts_per_tok": 2}
WIDE = {"moe_intermediate_size": WIDTH}
OTHERS = {
    "gemma4_text": {
        **ONE_HEAD,
        **WIDE,
        "enable_moe_block": True,
        "num_experts": EXPERTS,
        "top_k_experts": 2,
        "head_dim": 8,
        "global_head_dim": 8,
        "hidden_size_per_layer_input": 0,
        "layer_types": ["full_attention"],
    },
    "gpt_oss": {
        **ONE_HEAD,
        "num_local_experts": EXPERTS,
        "head_dim": 8,
        "layer_types": ["full_attention"],
        "intermediate_size": WIDTH,
    },
    "deepseek_v3": {
        **ONE_HEAD,
        **WIDE,
        "n_routed_experts": EXPERTS,
        "first_k_dense_replace": 0,
        "n_group": 1,
        "topk_group": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
}
"""Experts next to an FFN; interleaved and transposed ones with biases; routing in groups."""
WHOLE = ("gate", "gate_up")


@pytest.fixture(scope="module")
def mixed(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A small LLaVA whose only layer has four routed experts and a shared one."""
    return louder(llava_around(subject, tmp_path_factory.mktemp("mixed"), MIXTURE))


@pytest.fixture(scope="module")
def ernie(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A type with experts of its own for visual and for text tokens."""
    folder = build(FURTHER["ernie4_5_vl_moe"], tmp_path_factory.mktemp("ernie"))
    template = str(folder / "prompt.jinja")
    settings = SubjectSettings(model=str(folder), chat_template=template, geometry="none")
    return load_subject(settings, threads=1)


def louder(subject: Subject) -> Subject:
    generator = torch.Generator().manual_seed(0)
    for weight in decoder_layers(subject)[0].mlp.parameters():
        weight.data.normal_(0, 0.4, generator=generator)
    return subject


def batch_of(subject: Subject) -> Batch:
    """A red and a blue square; the activations of samples that share a batch must not mix."""
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    texts = ("a red square and", "the blue one is")
    samples = [encode(subject, [one], said) for one, said in zip(pictures, texts, strict=True)]
    return collate([0, 1], samples)


def seen_at(subject: Subject, layer: int, hook_point: HookPoint, batch: Batch) -> torch.Tensor:
    """What is observed in a layer: [samples * tokens, neurons], -7 where a token was not routed."""
    seen: list[torch.Tensor] = []
    with (
        observing(subject, [layer], hook_point, lambda _, one: seen.append(one), absent=-7.0),
        torch.inference_mode(),
    ):
        forward_body(subject, batch.inputs)
    return seen[0].flatten(0, 1)


def inputs_of(subject: Subject, module: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
    """What a module reads, recorded without the code under test."""
    read: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: read.extend(args))
    with torch.no_grad():
        forward_body(subject, batch.inputs)
    handle.remove()
    return read


def by_hand(experts, hidden, chosen, hook_point: HookPoint) -> torch.Tensor:
    """Activations [tokens, experts * neurons], a token and an expert at a time."""
    width = experts.down_proj.shape[2]
    found = torch.full((len(hidden), len(experts.down_proj), width), -7.0)
    for token, mine in enumerate(chosen.tolist()):
        for expert in mine:
            gate, up = (experts.gate_up_proj[expert] @ hidden[token]).chunk(2)
            active = torch.nn.functional.silu(gate)
            found[token, expert] = active * up if hook_point == "gate_up" else active
    return found.flatten(1).detach()


@pytest.mark.parametrize("hook_point", WHOLE)
def test_activations_are_those_of_each_token_in_its_experts(mixed, hook_point):
    batch, mlp = batch_of(mixed), decoder_layers(mixed)[0].mlp
    hidden, chosen, _ = inputs_of(mixed, mlp.experts, batch)
    (shared,) = inputs_of(mixed, mlp.shared_expert.down_proj, batch)
    if hook_point == "gate":
        shared = torch.nn.functional.silu(mlp.shared_expert.gate_proj(hidden)).detach()
    expected = torch.cat([by_hand(mlp.experts, hidden, chosen, hook_point), shared], 1)
    seen = seen_at(mixed, 0, hook_point, batch)
    torch.testing.assert_close(seen, expected)
    assert seen.shape[1] == neurons_per_layer(mixed, hook_point) == EXPERTS * WIDTH + SHARED
    assert len(set(chosen.flatten().tolist())) > 2  # Otherwise a mix-up of experts would pass.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_activations_in_16_bits_are_recognized(mixed, dtype):
    folder = mixed.settings.model
    half = louder(load_subject(SubjectSettings(model=folder, dtype=dtype), threads=1))
    batch, experts = batch_of(half), decoder_layers(half)[0].mlp.experts
    hidden, chosen, _ = inputs_of(half, experts, batch)
    expected = by_hand(experts, hidden, chosen, "gate").float()
    seen = seen_at(half, 0, "gate", batch)[:, : EXPERTS * WIDTH]
    assert str(seen.dtype) == f"torch.{dtype}"
    torch.testing.assert_close(seen.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_the_order_in_which_experts_are_computed_does_not_matter(mixed, implementation):
    batch = batch_of(mixed)
    expected = seen_at(mixed, 0, "gate", batch)
    experts = decoder_layers(mixed)[0].mlp.experts
    earlier = experts.config._experts_implementation_internal
    experts.config._experts_implementation_internal = implementation
    torch.testing.assert_close(seen_at(mixed, 0, "gate", batch), expected)
    assert experts.config._experts_implementation_internal == implementation
    experts.config._experts_implementation_internal = earlier
    assert "_apply_gate" not in vars(experts)


def test_rows_in_another_order_are_refused(mixed, monkeypatch):
    monkeypatch.setattr("neuron_atlas.tasks.subject.routing._SORTED", "batched_mm")
    with pytest.raises(SubjectError, match="Qwen2MoeExperts computes its rows in an order"):
        seen_at(mixed, 0, "gate", batch_of(mixed))


@pytest.mark.parametrize("kind", OTHERS)
def test_experts_that_are_built_otherwise_are_read(subject, tmp_path, kind):
    subject = llava_around(subject, tmp_path, {"model_type": kind, **OTHERS[kind]})
    (layer,) = decoder_layers(subject)
    for name, weight in layer.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.4)
    batch = batch_of(subject)
    (experts,) = (
        part for part in layer.modules() if isinstance(getattr(part, "down_proj", 0), torch.Tensor)
    )
    hidden, *given = inputs_of(subject, experts, batch)
    (chosen,) = (one for one in given if not one.is_floating_point())
    expected = torch.full((len(hidden), EXPERTS, WIDTH), -7.0)
    for token, mine in enumerate(chosen.tolist()):
        for expert in mine:
            wide = experts.gate_up_proj[expert]
            both = hidden[token] @ (wide if experts.is_transposed else wide.T)
            if experts.has_bias:
                both = both + experts.gate_up_proj_bias[expert]
            expected[token, expert] = experts._apply_gate(both[None])[0]
    seen = seen_at(subject, 0, "gate_up", batch)
    torch.testing.assert_close(seen[:, : EXPERTS * WIDTH], expected.flatten(1).detach())


def test_experts_that_are_given_every_token_are_read_where_they_were_chosen(subject, tmp_path):
    """Llama 4 multiplies an expert's input by the router's score, which is 0 for other tokens."""
    subject = llava_around(subject, tmp_path, LLAMA4)
    layer = decoder_layers(subject)[0].feed_forward
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    batch = batch_of(subject)
    (hidden,) = inputs_of(subject, layer.shared_expert, batch)
    logits = hidden @ layer.router.weight.T
    expected = torch.full((len(hidden), EXPERTS, WIDTH), -7.0)
    for token, mine in enumerate(logits.topk(2).indices.tolist()):
        for expert in mine:
            read = hidden[token] * logits[token, expert].sigmoid()
            gate = (read @ layer.experts.gate_up_proj[expert])[:WIDTH]
            expected[token, expert] = torch.nn.functional.silu(gate)
    seen = seen_at(subject, 0, "gate", batch)
    torch.testing.assert_close(seen[:, : EXPERTS * WIDTH], expected.flatten(1).detach())
    with pytest.raises(SubjectError, match=r"set capture\.hook_point=gate$"):
        check_layers(subject, [0], "gate_up")


def test_experts_of_visual_tokens_are_read_at_visual_tokens_only(ernie):
    sample = encode(ernie, [PICTURES["even"]], TEXT_SAID)
    batch = collate([0], [sample])
    moe = decoder_layers(ernie)[1].mlp
    is_image = sample.input_ids == ernie.image_token_id
    marks = batch.inputs["moe_mm_token_type_ids"][0].bool()
    assert is_image.sum() <= marks.sum() < len(marks)
    seen = seen_at(ernie, 1, "gate", batch)
    (layout,) = expert_layouts(ernie, "gate").values()
    assert expert_layouts(ernie, "module:mlp") == {}
    (experts, width), _ = layout.routed
    for first, part, chosen in ((0, moe.text_moe, ~marks), (experts, moe.vision_moe, marks)):
        hidden, routed, _ = inputs_of(ernie, part.experts, batch)
        expected = torch.full((len(marks), experts * width), -7.0)
        expected[chosen] = by_hand(part.experts, hidden, routed, "gate")
        start = layout.starts[first]
        torch.testing.assert_close(seen[:, start : start + experts * width], expected)
    # A text alone has no tokens for the experts of images.
    alone = collate([0], [encode(ernie, [], TEXT_SAID)])
    start = layout.starts[experts]
    absent = seen_at(ernie, 1, "gate", alone)[:, start : start + experts * width]
    assert (absent == -7).all()


@pytest.mark.parametrize("hook_point", WHOLE)
def test_an_effect_in_an_expert_is_the_slope_of_the_loss(mixed, hook_point):
    batch = batch_of(mixed)
    with watching(mixed, [0], hook_point) as run:
        products = run(batch)[0].products.sum(1)[0]
    expert = int(products[: EXPERTS * WIDTH].abs().argmax())
    shared = EXPERTS * WIDTH + int(products[EXPERTS * WIDTH :].abs().argmax())
    for neuron in (expert, shared):
        mean = []
        for alpha in (1.02, 0.98):
            with (
                intervening(mixed, [Intervention(0, (neuron,), "scale", alpha)], hook_point),
                torch.inference_mode(),
            ):
                losses = text_losses(mixed, batch)[0, batch.roles[0] == TEXT]
                mean.append(losses.double().mean().item())
        slope = (mean[0] - mean[1]) / 0.04
        assert slope == pytest.approx(products[neuron].item(), rel=0.05, abs=1e-6)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_activations_times_what_is_observed_as_up_are_gate_up(mixed, checkpoints):
    batch = batch_of(mixed)
    whole = torch.zeros(*batch.roles.shape, EXPERTS * WIDTH + SHARED)
    with watching(mixed, [0], "gate", lambda _, act, up: whole.add_(act * up), checkpoints) as run:
        run(batch)
    expected = seen_at(mixed, 0, "gate_up", batch)
    torch.testing.assert_close(whole.flatten(0, 1), expected.masked_fill(expected == -7, 0))


def test_a_neuron_set_to_zero_writes_nothing(mixed):
    """The same as its column of down_proj set to zero; an expert's other neurons go on."""
    batch, experts = batch_of(mixed), decoder_layers(mixed)[0].mlp.experts
    neuron = WIDTH + 3
    with intervening(mixed, [Intervention(0, (neuron,), "zero", 0.0)]), torch.inference_mode():
        changed = forward_body(mixed, batch.inputs)
    column = experts.down_proj.data[1, :, 3].clone()
    with torch.inference_mode():
        before = forward_body(mixed, batch.inputs)
        experts.down_proj.data[1, :, 3] = 0
        expected = forward_body(mixed, batch.inputs)
    experts.down_proj.data[1, :, 3] = column
    torch.testing.assert_close(changed, expected)
    assert not torch.equal(changed, before)


def test_a_neuron_writes_its_column_of_its_expert(mixed):
    mlp = decoder_layers(mixed)[0].mlp
    norm = mixed.decoder.norm.weight
    directions = write_directions(mixed, 0)
    for expert, neuron in ((0, 2), (3, 15)):
        expected = mlp.experts.down_proj[expert, :, neuron] * norm
        torch.testing.assert_close(directions[expert * WIDTH + neuron], expected.detach())
    expected = mlp.shared_expert.down_proj.weight[:, 5] * norm
    torch.testing.assert_close(directions[EXPERTS * WIDTH + 5], expected.detach())


def test_neurons_are_numbered_by_expert():
    layout = ExpertLayout(((2, 3), (1, 5)), shared=4)
    assert layout.neurons == 15
    pairs = [layout.expert(neuron) for neuron in range(15)]
    assert pairs[:7] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert pairs[-1] == (3, 3)
    assert [layout.neuron(*pair) for pair in pairs] == list(range(15))
    assert layout.name(4) == "expert 1, neuron 1"
    assert layout.name(12) == "shared expert, neuron 1"
    assert ExpertLayout.from_table(layout.table(3)) == layout
    assert ExpertLayout.from_table(layout.table(3)[:0]) is None
    for wrong in ((0, 3), (4, 0), (-1, 0)):
        with pytest.raises(ValueError, match="there is no neuron"):
            layout.neuron(*wrong)
    with pytest.raises(ValueError, match="there is no neuron 15"):
        layout.expert(15)
