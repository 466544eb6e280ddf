"""Compare an observe backend with plain torch, on the device that will run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BLOCKS
from neuron_atlas.tasks.capture import observe_torch
from neuron_atlas.tasks.capture.record import LayerRecord, SlotSummaries, empty_record
from neuron_atlas.tasks.subject.batches import PADDING, Batch

_SAMPLES, _TOKENS, _NEURONS, _TOP_N = 5, 70, 100, 3
_SUMMARIES = tuple(spec.name for spec in fields(SlotSummaries))
_EXACT = ("tokens", "nonfinite", "positive", "maximum", "histogram")


def first_difference(
    observe: Callable[[LayerRecord, torch.Tensor, Batch], None],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Return a message about the first difference from observe_torch; "" if there is none.

    Sums may differ by 1e-5 (relative), and slots may be in another order.
    """
    activations, batch = _synthetic_batch(device)
    activations = activations.to(dtype)
    records = []
    for backend in (observe, observe_torch.observe):
        record = empty_record(_NEURONS, _TOP_N, device)
        backend(record, activations, batch)
        backend(record, activations * 0.5, batch)
        records.append(record)
    checked, plain = records
    pairs = {
        name: (getattr(checked.statistics, name), getattr(plain.statistics, name))
        for name in _EXACT
    }
    order = [record.keys.sort(1, descending=True) for record in records]
    pairs["keys"] = (order[0].values, order[1].values)
    pairs["peak_positions"] = (
        _by_rank(checked.peak_positions, order[0].indices),
        _by_rank(plain.peak_positions, order[1].indices),
    )
    for name in _SUMMARIES:
        pairs[name] = (
            _by_rank(getattr(checked.slots, name), order[0].indices),
            _by_rank(getattr(plain.slots, name), order[1].indices),
        )
    for name, (first, second) in pairs.items():
        if not torch.equal(first, second):
            return f"{name} differ from plain torch"
    # Positive and negative terms cancel, so the tolerance is relative to the terms' size.
    size = (plain.statistics.squares * plain.statistics.tokens).sqrt()
    if ((checked.statistics.total - plain.statistics.total).abs() > 1e-5 * size).any():
        return "total differ from plain torch"
    if (
        (checked.statistics.squares - plain.statistics.squares).abs()
        > 1e-5 * plain.statistics.squares
    ).any():
        return "squares differ from plain torch"
    return ""


def _by_rank(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Sort what is stored per slot, [neurons, N], by role [2, neurons, N] or with several
    activations [2, neurons, N, K], by rank."""
    neuron = torch.arange(len(order), device=order.device)[:, None]
    # The indices are the axes of neurons and slots: the first two, or after the axis of roles.
    return values[neuron, order] if values.ndim == 2 else values[:, neuron, order]


def _synthetic_batch(device: torch.device) -> tuple[torch.Tensor, Batch]:
    """Return activations of many magnitudes, with ties, NaN and infinity, in every role."""
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
