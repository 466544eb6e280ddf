"""The running top N of every neuron, as one tensor of integers.

A peak and the sample it came from are packed into one int64 whose order is the ranking itself:
the higher peak first and, among equal peaks, the lower sample_id. Every key is distinct, so any
top-k of keys is the same whatever the order, the batches or the shards they arrive in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

EMPTY = torch.iinfo(torch.int64).min
"""A slot without an exemplar; below every real key."""

_LOW = 0xFFFFFFFF


class Entries(NamedTuple):
    """Which samples entered which slots: three int64 [entered] index tensors."""

    neuron: torch.Tensor
    slot: torch.Tensor
    sample: torch.Tensor


def pack(peaks: torch.Tensor, sample_ids: torch.Tensor) -> torch.Tensor:
    """Keys int64 of float32 `peaks` and the (broadcastable) int64 `sample_ids` below 2^31.

    A NaN peak ranks below every number: a sample that overflowed is evidence of nothing.
    """
    # Adding 0.0 turns -0.0 into 0.0, so that the two are one value to the ranking too.
    bits = peaks.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0
    bits = bits.view(torch.int32)
    # IEEE 754 numbers sort as integers once the negative ones have their magnitude flipped.
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (_LOW - sample_ids)


def unpack(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Peaks float32 and sample_ids int64 of `keys`; NaN and -1 where a slot is empty."""
    ordered = (keys >> 32).int()
    peaks = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    sample_ids = _LOW - (keys & _LOW)
    empty = keys == EMPTY
    return peaks.masked_fill(empty, torch.nan), sample_ids.masked_fill(empty, -1)


def insert(keys: torch.Tensor, candidates: torch.Tensor) -> Entries:
    """Put the `candidates` [neurons, batch] that beat the weakest into `keys` [neurons, N].

    Slots keep their place: an entering sample takes the slot of one that leaves, so whatever is
    stored beside a slot is written only when a sample enters it. Changes `keys` in place.
    """
    n_slots = keys.shape[1]
    rows = (candidates > keys.amin(1, keepdim=True)).any(1).nonzero().squeeze(1)
    if rows.numel() == 0:
        nothing = rows.new_empty(0)
        return Entries(nothing, nothing, nothing)
    both = torch.cat([keys[rows], candidates[rows]], dim=1)
    survives = torch.zeros_like(both, dtype=torch.bool)
    survives.scatter_(1, both.topk(n_slots, dim=1, sorted=False).indices, True)
    # A neuron has as many samples that enter as slots that leave, and nonzero lists both by
    # neuron, so the two lists pair up one to one.
    row, slot = (~survives[:, :n_slots]).nonzero(as_tuple=True)
    _, sample = survives[:, n_slots:].nonzero(as_tuple=True)
    neuron = rows[row]
    keys[neuron, slot] = candidates[neuron, sample]
    return Entries(neuron, slot, sample)
