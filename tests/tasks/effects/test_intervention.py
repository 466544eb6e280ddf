"""Interventions change the activations they name, and nothing else, and leave nothing behind."""

import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.effects.intervention import Intervention, InterventionError, intervening
from neuron_atlas.tasks.subject.batches import Batch, collate
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode, question_prompt
from neuron_atlas.tasks.subject.hook_points import decoder_layers, observing
from neuron_atlas.tasks.subject.load import Subject

PICTURE = Image.new("RGB", (64, 64), (10, 200, 30))


@pytest.fixture(scope="module")
def batch(subject: Subject) -> Batch:
    """Three times the same sample."""
    encoded = encode(subject, [PICTURE], "There is a large green square.")
    return collate([0, 1, 2], [encoded] * 3)


def logits(subject: Subject, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return subject.model(**batch.inputs, use_cache=False).logits


def activations(subject: Subject, batch: Batch, layer: int, *changes: Intervention) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    with (
        intervening(subject, changes, roles=batch.roles),
        observing(subject, [layer], "gate", lambda _, values: seen.append(values)),
    ):
        logits(subject, batch)
    return seen[0]


def interrupted(subject: Subject, changes: list[Intervention]) -> None:
    with intervening(subject, changes):
        raise RuntimeError("interrupted")


def hooks(subject: Subject) -> int:
    modules = subject.model.modules()
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in modules)


@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
def test_zeroing_is_removing_the_columns_of_down_proj(subject, batch, hook_point):
    weight = decoder_layers(subject)[2].mlp.down_proj.weight
    original = weight.detach().clone()
    with intervening(subject, [Intervention(2, (5, 17))], hook_point):
        zeroed = logits(subject, batch)
    try:
        weight.data[:, [5, 17]] = 0
        removed = logits(subject, batch)
    finally:
        weight.data.copy_(original)
    torch.testing.assert_close(zeroed, removed, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(zeroed, logits(subject, batch), atol=1e-5)


def test_every_way_of_changing_an_activation(subject, batch):
    plain = activations(subject, batch, 1)
    for how, value, expected in (
        ("zero", 0.0, torch.zeros_like(plain)),
        ("set", -0.5, torch.full_like(plain, -0.5)),
        ("scale", 3.0, plain * 3),
        ("clamp", 0.1, plain.clamp(min=0.1)),
        ("clamp", -0.1, plain.clamp(max=-0.1)),
    ):
        changed = activations(subject, batch, 1, Intervention(1, (3, 9), how, value))
        torch.testing.assert_close(changed[..., [3, 9]], expected[..., [3, 9]])
        untouched = [one for one in range(512) if one not in (3, 9)]
        torch.testing.assert_close(changed[..., untouched], plain[..., untouched])


def test_each_neuron_may_have_its_own_value_and_each_row_its_own_neuron(subject, batch):
    plain = activations(subject, batch, 1)
    changed = activations(
        subject, batch, 1,
        Intervention(1, (3, 9), "set", (1.0, 2.0), rows=(0,)),
        Intervention(1, (4,), "set", 5.0, rows=(1,)),
    )  # fmt: skip
    expected = plain.clone()
    expected[0, :, 3], expected[0, :, 9], expected[1, :, 4] = 1, 2, 5
    torch.testing.assert_close(changed, expected)


def test_a_row_is_what_the_same_change_of_all_rows_gives(subject, batch):
    changes = [Intervention(layer, (row,), rows=(row,)) for row in range(3) for layer in (0, 2)]
    with intervening(subject, changes):
        together = logits(subject, batch)
    for row in range(3):
        with intervening(subject, [Intervention(layer, (row,)) for layer in (0, 2)]):
            torch.testing.assert_close(together[row], logits(subject, batch)[row])


def test_only_tokens_of_the_named_roles_change(subject, batch):
    plain = activations(subject, batch, 3)
    for rows in (None, (1,)):
        change = Intervention(3, (7,), "set", 9.0, rows=rows, roles=(VISUAL,))
        changed = activations(subject, batch, 3, change)
        named = batch.roles == VISUAL
        if rows:
            named[[0, 2]] = False
        expected = plain.clone()
        expected[..., 7] = torch.where(named, 9.0, plain[..., 7])
        torch.testing.assert_close(changed, expected)


def test_later_interventions_see_earlier_ones(subject, batch):
    changes = [Intervention(1, (3,), "set", 2.0), Intervention(1, (3,), "scale", 4.0)]
    assert (activations(subject, batch, 1, *changes)[..., 3] == 8).all()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("role", [None, TEXT])
def test_generation_applies_them_to_every_new_token(subject, use_cache, role):
    inputs = subject.processor(
        images=[[PICTURE]], text=[question_prompt(subject)], add_special_tokens=False,
        return_tensors="pt",
    )  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    roles = torch.full((1, prompt), 2, dtype=torch.int8)
    change = Intervention(1, (3,), "set", 9.0, roles=None if role is None else (role,))
    seen: list[torch.Tensor] = []
    with (
        intervening(subject, [change], roles=roles),
        observing(subject, [1], "gate", lambda _, values: seen.append(values[0, :, 3])),
        torch.inference_mode(),
    ):
        subject.model.generate(
            **inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=use_cache
        )
    tokens = torch.cat(seen) if use_cache else seen[-1]
    assert (tokens[prompt:] == 9).all()
    assert len(tokens) == prompt + 3
    assert (tokens[:prompt] == 9).all() == (role is None)


def test_nothing_is_left_behind(subject, batch):
    before, plain = hooks(subject), logits(subject, batch)
    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted(subject, [Intervention(0, (1,)), Intervention(3, (1,))])
    with pytest.raises(InterventionError, match="row 3 of a batch of 3"):
        activations(subject, batch, 0, Intervention(0, (1,), rows=(3,)))
    assert hooks(subject) == before
    assert torch.equal(logits(subject, batch), plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Intervention(4, (1,)), r"^there is no layer 4; .* has layers 0 to 3$"),
        (Intervention(1, (512,)), r"^there is no neuron 1:512; layer 1 .* neurons 0 to 511$"),
        (Intervention(1, (-1,)), r"^there is no neuron 1:-1;"),
        (Intervention(1, (1, 2), "set", (1.0,)), "1 values for 2 neurons"),
        (Intervention(1, (1,), "scale", 1e39), r"1e\+39 .* not a number of float32"),
        (Intervention(1, (1,), "scale", float("nan")), "the value nan"),
        (Intervention(1, (1,), roles=(TEXT,)), "give intervening"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(subject, change, message):
    with pytest.raises(InterventionError, match=message) as error, intervening(subject, [change]):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("alpha", [1e25, 1e38])
def test_an_alpha_that_overflows_is_an_error_and_not_a_result(subject, batch, alpha):
    """At 1e25 every number is finite, but the final norm squares it and returns zeros."""
    with (
        pytest.raises(InterventionError, match=r"overflows with scale 1e\+\d+ in layer 2: use a"),
        intervening(subject, [Intervention(2, (5,), "scale", alpha)]),
    ):
        logits(subject, batch)
