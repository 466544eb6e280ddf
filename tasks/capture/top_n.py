"""Keep the running top N of every neuron in one tensor of integers.

A peak and its sample_id are packed into one int64 key. Keys sort like the ranking: the higher peak
first and, among equal peaks, the lower sample_id. All keys are distinct, so the top N does not
depend on order, batches or shards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

EMPTY = torch.iinfo(torch.int64).min
"""Key of a slot without an exemplar; below every other key."""

_LOW = 0xFFFFFFFF


class Entries(NamedTuple):
    """The samples that entered, and their slots: three int64 [entered] index tensors."""

    neuron: torch.Tensor
    slot: torch.Tensor
    sample: torch.Tensor


def pack(peaks: torch.Tensor, sample_ids: torch.Tensor) -> torch.Tensor:
    """Return int64 keys of float32 `peaks` and (broadcastable) int64 `sample_ids` below 2^31.

    NaN peaks count as -inf: a sample that overflowed is not evidence.
    """
    # Adding 0.0 turns -0.0 into 0.0, so both rank equally.
    bits = peaks.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0
    bits = bits.view(torch.int32)
    # IEEE 754 floats sort like integers if the magnitude bits of negative numbers are flipped.
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (_LOW - sample_ids)


def unpack(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the float32 peaks and int64 sample_ids of `keys`; NaN and -1 for empty slots."""
    ordered = (keys >> 32).int()
    peaks = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    sample_ids = _LOW - (keys & _LOW)
    empty = keys == EMPTY
    return peaks.masked_fill(empty, torch.nan), sample_ids.masked_fill(empty, -1)


def insert(keys: torch.Tensor, candidates: torch.Tensor) -> Entries:
    """Insert the `candidates` [neurons, batch] that beat the weakest key into `keys` [neurons, N].

    Changes `keys` in place. An entering sample takes the slot of one that leaves and the other
    slots do not move, so data stored per slot is written only when a sample enters it.
    """
    n_slots = keys.shape[1]
    rows = (candidates > keys.amin(1, keepdim=True)).any(1).nonzero().squeeze(1)
    if rows.numel() == 0:
        empty = rows.new_empty(0)
        return Entries(empty, empty, empty)
    combined = torch.cat([keys[rows], candidates[rows]], dim=1)
    survives = torch.zeros_like(combined, dtype=torch.bool)
    survives.scatter_(1, combined.topk(n_slots, dim=1, sorted=False).indices, True)
    # Each neuron has as many entering samples as leaving slots, and nonzero lists both by neuron,
    # so the two lists match one to one.
    row, slot = (~survives[:, :n_slots]).nonzero(as_tuple=True)
    _, sample = survives[:, n_slots:].nonzero(as_tuple=True)
    neuron = rows[row]
    keys[neuron, slot] = candidates[neuron, sample]
    return Entries(neuron, slot, sample)
