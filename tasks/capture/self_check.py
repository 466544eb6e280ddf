"""Check a way of observing against plain torch, on the device where it is to be used."""

from __future__ import annotations

from collections.abc import Callable

import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BLOCKS
from neuron_atlas.tasks.capture import observe_torch
from neuron_atlas.tasks.capture.batch import PADDING, Batch
from neuron_atlas.tasks.capture.record import LayerRecord, Layout, empty_record

_SAMPLES, _TOKENS, _NEURONS, _TOP_N = 5, 70, 100, 3
_EXACT = ("tokens", "nonfinite", "positive", "maximum", "histogram")


def first_difference(
    observe: Callable[[LayerRecord, torch.Tensor, Batch], None],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> str:
    """What `observe` records otherwise than observe_torch does, in words; empty if nothing."""
    activations, batch = _made_up_batch(device)
    activations = activations.to(dtype)
    records = []
    for way in (observe, observe_torch.observe):
        record = empty_record(_NEURONS, _TOP_N, Layout(_TOKENS, _TOKENS), [], device)
        record.make_room_for_traces(device)
        way(record, activations, batch)
        way(record, activations * 0.5, batch)
        records.append(record)
    mine, plain = records
    pairs = {name: (getattr(mine.tally, name), getattr(plain.tally, name)) for name in _EXACT}
    order = [record.keys.sort(1, descending=True) for record in records]
    pairs["keys"] = (order[0].values, order[1].values)
    pairs["peak_places"] = (
        mine.peak_places.gather(1, order[0].indices),
        plain.peak_places.gather(1, order[1].indices),
    )
    for name, (first, second) in pairs.items():
        if not torch.equal(first, second):
            return f"{name} differ from plain torch's"
    # Sums cancel, so what they may differ by goes with the size of what is summed.
    size = (plain.tally.squares * plain.tally.tokens[:, None]).sqrt()
    if ((mine.tally.total - plain.tally.total).abs() > 1e-5 * size).any():
        return "total differ from plain torch's"
    if ((mine.tally.squares - plain.tally.squares).abs() > 1e-5 * plain.tally.squares).any():
        return "squares differ from plain torch's"
    return ""


def _made_up_batch(device: torch.device) -> tuple[torch.Tensor, Batch]:
    """Activations of many sizes, with equal ones and some that are no number, in every role."""
    generator = torch.Generator().manual_seed(0)
    shape = (_SAMPLES, _TOKENS, _NEURONS)
    sizes = torch.randint(-12, 9, shape, generator=generator)
    activations = torch.randn(shape, generator=generator).mul(8).round() / 8 * 2.0**sizes
    activations[0, 3, 1], activations[1, 9, 2] = torch.nan, torch.inf
    roles = torch.randint(PADDING, len(ROLES), (_SAMPLES, _TOKENS), generator=generator)
    batch = Batch(
        ids=tuple(range(_SAMPLES)),
        inputs={},
        roles=roles.to(torch.int8),
        sample_ids=torch.arange(_SAMPLES),
        blocks=torch.arange(_SAMPLES) * 3 % BLOCKS,
    )
    return activations.to(device), batch.to(device)
