"""Effects in types whose FFN, norms or body are built otherwise than LLaMA's."""

import pytest
import torch

from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.effects.output_tokens import write_directions
from neuron_atlas.tasks.subject.batches import Batch, collate
from neuron_atlas.tasks.subject.embeddings import embed_batch
from neuron_atlas.tasks.subject.encode import TEXT, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers, ffn_of, final_norm
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectSettings
from tests.families.building import build
from tests.families.pictures import PICTURES, TEXT_SAID
from tests.families.wide import WIDE

KINDS = {
    "aya_vision": "a norm that subtracts the mean",
    "cosmos3_edge": "no gate",
    "glm4v": "a fused gate, and a norm after the FFN",
    "qwen2_5_omni_thinker": "no body below the head that takes images",
}


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = build(WIDE[request.param], tmp_path_factory.mktemp(request.param))
    template = str(folder / "prompt.jinja")
    settings = SubjectSettings(model=str(folder), chat_template=template, geometry="none")
    made = load_subject(settings, threads=1)
    generator = torch.Generator().manual_seed(0)
    for name, weight in made.decoder.named_parameters():
        if "norm" in name:
            weight.data.uniform_(0.5, 1.5, generator=generator)
    return made


@pytest.fixture(scope="module")
def batch(subject: Subject) -> Batch:
    return collate([0], [encode(subject, [PICTURES["odd"]], TEXT_SAID)])


def losses(subject: Subject, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return text_losses(subject, batch)[0, batch.roles[0] == TEXT]


def test_the_loss_is_that_of_the_models_own_head(subject, batch):
    with torch.inference_mode():
        logits = subject.model(**batch.inputs, use_cache=False).logits
    (tokens,) = (batch.roles[0] == TEXT).nonzero(as_tuple=True)
    ids = batch.inputs["input_ids"][0, tokens]
    expected = -logits[0, tokens - 1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(losses(subject, batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
def test_the_effect_is_the_slope_of_the_loss(subject, batch, hook_point: HookPoint):
    with watching(subject, [0, 1], hook_point) as run:
        products = run(batch)[0].products[0].sum(0)
    neuron = int(products.abs().argmax())
    mean = []
    for alpha in (1.02, 0.98):
        with intervening(subject, [Intervention(0, (neuron,), "scale", alpha)], hook_point):
            mean.append(losses(subject, batch).double().mean().item())
    assert (mean[0] - mean[1]) / 0.04 == pytest.approx(products[neuron].item(), rel=0.05, abs=1e-4)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_activations_times_what_is_observed_as_up_are_what_the_last_layer_reads(
    subject, batch, checkpoints
):
    read: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    down = ffn_of(subject, 1).down
    handle = down.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    with watching(
        subject, [1], "gate", lambda _, act, up: seen.append(act * up), checkpoints
    ) as run:
        run(batch)
    handle.remove()
    (product,) = seen
    torch.testing.assert_close(product, read[0])


def test_a_write_goes_through_the_norms_as_the_model_applies_them(subject):
    """At a residual stream of mean 0 and length 1 per dimension that is orthogonal to the write,
    the derivative of a norm is all of it but the division."""
    layer = decoder_layers(subject)[1]
    names = ("post_feedforward_layernorm", "post_mlp_layernorm")
    norms = [part for name, part in layer.named_children() if name in names]
    for neuron in (0, 5):
        write = ffn_of(subject, 1).down.weight.detach()[:, neuron]
        for norm in (*norms, final_norm(subject)):
            basis, _ = torch.linalg.qr(torch.stack([torch.ones_like(write), write], 1))
            stream = torch.randn(len(write), generator=torch.Generator().manual_seed(0))
            stream = stream - basis @ (basis.T @ stream)
            stream = stream / stream.square().mean().sqrt()
            _, write = torch.func.jvp(norm, (stream[None],), (write[None],))
            write = write[0].detach()
        assert write.abs().max() > 1e-3
        found = write_directions(subject, 1)[neuron]
        torch.testing.assert_close(found, write, rtol=1e-3, atol=1e-5)


def test_words_enter_the_decoder_as_their_embeddings(subject, batch):
    is_text = batch.roles[0] == TEXT
    table = subject.model.get_input_embeddings()
    expected = table(batch.inputs["input_ids"][0, is_text])
    torch.testing.assert_close(embed_batch(subject, batch)[0, is_text], expected)
