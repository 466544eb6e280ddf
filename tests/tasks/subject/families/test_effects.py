"""The loss, its gradient and the direction of a write, in every family."""

import pytest
import torch

from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.effects.output_tokens import output_tokens, write_directions
from neuron_atlas.tasks.subject.batches import Batch, collate
from neuron_atlas.tasks.subject.encode import TEXT, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer
from neuron_atlas.tasks.subject.load import Subject
from tests.families.pictures import PICTURES, TEXT_SAID


@pytest.fixture(scope="module")
def batch(subject: Subject) -> Batch:
    return collate([0], [encode(subject, [PICTURES["even"]], TEXT_SAID)])


def test_the_loss_is_that_of_the_models_own_head(subject, batch):
    with torch.inference_mode():
        logits = subject.model(**batch.inputs, use_cache=False).logits
        found = text_losses(subject, batch)
    (tokens,) = (batch.roles[0] == TEXT).nonzero(as_tuple=True)
    ids = batch.inputs["input_ids"][0, tokens]
    expected = -logits[0, tokens - 1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(found[0, tokens], expected, rtol=1e-4, atol=1e-5)


def test_the_effect_is_the_slope_of_the_loss(subject, batch):
    with watching(subject, [0, 1], "gate") as run:
        products = run(batch)[1].products[0].sum(0)
    neuron = int(products.abs().argmax())
    losses = []
    for alpha in (1.05, 0.95):
        with (
            intervening(subject, [Intervention(1, (neuron,), "scale", alpha)]),
            torch.inference_mode(),
        ):
            losses.append(text_losses(subject, batch).double().sum() / (batch.roles == TEXT).sum())
    slope = ((losses[0] - losses[1]) / 0.1).item()
    assert slope == pytest.approx(products[neuron].item(), rel=0.05, abs=1e-5)


def test_a_write_goes_through_the_norms_as_the_model_applies_them(subject):
    """A vector of length 1 per dimension passes a norm times the norm's weight."""
    layer = decoder_layers(subject)[1]
    columns = layer.mlp.down_proj.weight.detach().T
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(columns.shape[1], generator=generator)
    vector = vector / vector.square().mean().sqrt()
    scale = subject.model.model.get_decoder().norm(vector[None])[0] / vector
    if hasattr(layer, "post_feedforward_layernorm"):
        scale = scale * layer.post_feedforward_layernorm(vector[None])[0] / vector
    torch.testing.assert_close(
        write_directions(subject, 1), (columns * scale).detach(), rtol=1e-3, atol=1e-5
    )


def test_every_neuron_has_output_tokens(subject):
    neurons = neurons_per_layer(subject)
    up = torch.ones(4, neurons).numpy()
    rows = output_tokens(subject, 1, up, "gate", 3).to_pylist()
    assert len(rows) == neurons
    assert all(row["status"] == "ok" and len(set(row["promoted"])) > 0 for row in rows)
