"""Attribution is the derivative of the loss, however the samples are batched and sharded."""

import numpy as np
import pytest
import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.effects import MEASURES
from neuron_atlas.tasks.effects.attribution import (
    NeuronScales,
    attribute,
    read_sums,
    sample_effects,
)
from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.subject.batches import Batch, collate
from neuron_atlas.tasks.subject.encode import TEXT, EncodedSample
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.load import Subject

LAYERS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def samples(subject: Subject, scenes) -> list[tuple[int, EncodedSample]]:
    catalog = scenes.catalog()
    return list(encoded_samples(subject, sorted(catalog.samples), catalog, None, 2))


@pytest.fixture(scope="module")
def batch(samples) -> Batch:
    return collate([samples[0][0]], [samples[0][1]])


def mean_losses(subject: Subject, batch: Batch, *changes: Intervention) -> float:
    with intervening(subject, changes, roles=batch.roles), torch.inference_mode():
        losses = text_losses(subject, batch)
    return (losses.double().sum(1) / (batch.roles == TEXT).sum(1)).item()


def test_the_losses_are_those_of_the_models_own_head(subject, batch):
    with torch.inference_mode():
        logits = subject.model(**batch.inputs, use_cache=False).logits
        found = text_losses(subject, batch)
    expected = torch.zeros_like(found)
    ids = batch.inputs["input_ids"][0]
    for token in (batch.roles[0] == TEXT).nonzero()[:, 0].tolist():
        expected[0, token] = -logits[0, token - 1].log_softmax(-1)[ids[token]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
@pytest.mark.parametrize("role", range(len(ROLES)))
def test_the_effect_is_the_slope_of_the_loss_when_the_neuron_is_scaled(
    subject, batch, hook_point, role
):
    """d loss / d alpha at alpha = 1, where alpha scales the activations at tokens of a role."""
    with watching(subject, LAYERS, hook_point) as run:
        found = run(batch)
    for layer in LAYERS:
        # The neurons with the largest products, where the finite difference is well above noise.
        products = found[layer].products[0, role]
        for neuron in products.abs().topk(3).indices.tolist():
            up, down = (
                mean_losses(
                    subject, batch, Intervention(layer, (neuron,), "scale", alpha, roles=(role,))
                )
                for alpha in (1 + 0.05, 1 - 0.05)
            )
            assert (up - down) / 0.1 == pytest.approx(products[neuron].item(), rel=0.05, abs=2e-5)


def test_zeroing_and_replacing_by_the_mean_follow_from_the_sums(subject, batch):
    with watching(subject, [2], "gate") as run:
        found = run(batch)[2]
    mean = torch.linspace(-1, 1, 512)
    effects = dict(zip(MEASURES, sample_effects(found, mean)[0], strict=True))
    torch.testing.assert_close(effects["zero_text"], -found.products[0, 1])
    torch.testing.assert_close(
        effects["zero"], effects["zero_visual"] + effects["zero_text"] + effects["zero_template"]
    )
    torch.testing.assert_close(
        effects["mean_visual"], effects["zero_visual"] + mean * found.gradients[0, 0]
    )


def test_checkpoints_change_no_number_and_leave_nothing_behind(subject, batch):
    seen: list[tuple[int, torch.Tensor]] = []
    results = []
    for checkpoints in (False, True):
        with watching(
            subject, LAYERS, "gate", lambda layer, _, up: seen.append((layer, up)), checkpoints
        ) as run:
            results.append(run(batch))
    assert [layer for layer, _ in seen] == LAYERS * 2
    for layer in LAYERS:
        torch.testing.assert_close(results[0][layer].products, results[1][layer].products)
    assert all(weight.requires_grad for weight in subject.model.parameters())
    layers = subject.model.model.language_model.layers
    assert not any("forward" in vars(layer) for layer in layers)
    assert not any(layer.mlp.act_fn._forward_hooks for layer in layers)


def sums(subject: Subject, samples, size: int):
    scales = {
        layer: NeuronScales(np.full(512, 0.1, np.float32), np.full(512, 0.5, np.float32))
        for layer in (0, 3)
    }
    table = attribute(subject, lambda: iter(samples), scales, "gate", size)
    return [
        table.filter(np.array(table["layer"]) == layer) for layer in (0, 3)
    ]  # fmt: skip


def test_the_sums_are_the_same_for_any_shards_and_batches(subject, samples):
    whole = sums(subject, samples, 8)
    shards = [sums(subject, samples[start::3], 3) for start in range(3)]
    for place in range(2):
        one = read_sums([whole[place]])
        other = read_sums([shard[place] for shard in shards])
        assert one[0] == other[0] == len(samples)
        for mine, theirs in zip(one[1:], other[1:], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=1e-8)


def test_the_sums_are_over_samples_and_the_up_projection_over_strong_tokens(subject, samples):
    n_samples, powers, magnitudes, up = read_sums([sums(subject, samples[:2], 1)[1]])
    mean = torch.full((512,), 0.1)
    expected, strong_up = [], torch.zeros(2, 512)

    def observe(layer: int, values: torch.Tensor, projected: torch.Tensor) -> None:
        chosen = (one.roles == 0) | (one.roles == TEXT)
        strong = values[chosen] >= 0.5
        strong_up.add_(torch.stack([(strong * projected[chosen]).sum(0), strong.sum(0)]))

    for sample_id, encoded in samples[:2]:
        one = collate([sample_id], [encoded])
        with watching(subject, [3], "gate", observe) as run:
            expected.append(sample_effects(run(one)[3], mean)[0].double().numpy())
    assert n_samples == 2
    for number in range(3):
        np.testing.assert_allclose(
            powers[number], sum(one ** (number + 1) for one in expected), rtol=1e-4, atol=1e-12
        )
    np.testing.assert_allclose(magnitudes, sum(abs(one[:3]) for one in expected), rtol=1e-4)
    np.testing.assert_allclose(up[:2], strong_up.numpy(), rtol=1e-4)
    assert up[1].sum() > 0


def test_at_the_input_of_down_proj_the_up_projection_counts_as_one(subject, batch):
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    with watching(subject, LAYERS, "gate_up", lambda *one: seen.append(one)) as run:
        run(batch)
    assert [layer for layer, _, _ in seen] == list(LAYERS)
    assert all(up.shape == values.shape and bool((up == 1).all()) for _, values, up in seen)
