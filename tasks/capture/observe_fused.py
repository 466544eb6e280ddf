"""Update a record with one Triton kernel that reads a batch's activations once, for GPUs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.observe_torch import insert_exemplars
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.slot_summaries import summarize
from neuron_atlas.tasks.subject.batches import Batch

_BLOCK_TOKENS = 32
_BLOCK_NEURONS = 64

CONSTANTS = {
    "n_roles": len(ROLES),
    "bins": BINS,
    "code_of_bin_0": CODE_OF_BIN_0,
    "dropped_bits": DROPPED_BITS,
    "block_tokens": _BLOCK_TOKENS,
    "width": _BLOCK_NEURONS,
}
"""Compile-time constants of the kernel."""


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Update the record with a batch's activations; see `tasks.capture.observe.observe`."""
    n_samples, n_tokens, neurons = activations.shape
    values = activations.contiguous()
    statistics = record.statistics
    by_sample = (len(ROLES), n_samples, neurons)
    peaks = values.new_empty(by_sample, dtype=torch.float32)
    tokens = values.new_empty(by_sample, dtype=torch.int32)
    sums, squares = torch.empty_like(peaks), torch.empty_like(peaks)
    positive, nonfinite = torch.empty_like(tokens), torch.empty_like(tokens)
    grid = (triton.cdiv(neurons, _BLOCK_NEURONS), n_samples)
    # Triton launches on the current device, which may not be the layer's device.
    with torch.cuda.device_of(values):
        _accumulate[grid](
            values,
            batch.roles,
            batch.blocks,
            peaks,
            tokens,
            sums,
            squares,
            positive,
            nonfinite,
            statistics.histogram,
            n_samples,
            n_tokens,
            neurons,
            statistics.histogram.shape[1],
            **CONSTANTS,
        )
    counts = [(batch.roles == role).sum() for role in range(len(ROLES))]
    statistics.tokens += torch.stack(counts)[:, None]
    statistics.total += sums.double().sum(1)
    statistics.squares += squares.double().sum(1)
    statistics.positive += positive.sum(1)
    statistics.nonfinite += nonfinite.sum(1)
    torch.maximum(statistics.maximum, peaks.amax(1), out=statistics.maximum)
    entered = insert_exemplars(record, peaks, tokens.long(), batch)
    summarize(record.slots, entered, activations, batch)


# Both numbers change between batches, and Triton would compile a kernel for each kind of value.
@triton.jit(do_not_specialize=["n_samples", "n_tokens"])
def _accumulate(
    values,
    roles,
    blocks,
    peaks,
    tokens,
    sums,
    squares,
    positive,
    nonfinite,
    histogram,
    n_samples,
    n_tokens,
    neurons,
    cells,
    n_roles: tl.constexpr,
    bins: tl.constexpr,
    code_of_bin_0: tl.constexpr,
    dropped_bits: tl.constexpr,
    block_tokens: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Compute sums, bins and peaks of one sample and `width` neurons per program.

    A program reads the activations once for each role of the sample, in blocks of tokens; after
    the first role, they come from the cache.
    """
    sample = tl.program_id(1).to(tl.int64)
    neuron = tl.program_id(0) * width + tl.arange(0, width)
    in_range = neuron < neurons
    block = tl.load(blocks + sample)
    for role in tl.static_range(n_roles):
        peak = tl.full((width,), float("-inf"), tl.float32)
        peak_token = tl.zeros((width,), tl.int32)
        total = tl.zeros((width,), tl.float32)
        total_squares = tl.zeros((width,), tl.float32)
        above = tl.zeros((width,), tl.int32)
        nonfinite_count = tl.zeros((width,), tl.int32)
        lowest_bin = tl.zeros((width,), tl.int32)
        for first in range(0, n_tokens, block_tokens):
            token = first + tl.arange(0, block_tokens)
            is_role = tl.load(roles + sample * n_tokens + token, token < n_tokens, -1) == role
            if tl.sum(is_role.to(tl.int32), 0) > 0:
                mask = is_role[:, None] & in_range[None, :]
                offset = (sample * n_tokens + token[:, None]) * neurons + neuron[None, :]
                value = tl.load(values + offset, mask, 0.0).to(tl.float32)
                bits = value.to(tl.int32, bitcast=True)
                finite = mask & ((bits & 0x7FFFFFFF) < 0x7F800000)
                number = tl.where(finite, value, 0.0)
                total += tl.sum(number, 0)
                total_squares += tl.sum(number * number, 0)
                above += tl.sum((number > 0).to(tl.int32), 0)
                nonfinite_count += tl.sum((mask & (finite == 0)).to(tl.int32), 0)
                candidate = tl.where(finite, value, float("-inf"))
                highest = tl.max(candidate, 0)
                # The first token that reaches the peak.
                reaches = tl.where(candidate == highest[None, :], token[:, None], n_tokens)
                higher = highest > peak
                peak_token = tl.where(higher, tl.min(reaches, 0), peak_token)
                peak = tl.where(higher, highest, peak)
                if role < 2:
                    code = (bits >> dropped_bits) - code_of_bin_0
                    code = tl.minimum(tl.maximum(code, 0), bins - 1)
                    # Most activations are in the lowest bin and are counted here. The others
                    # use atomic additions, which are contiguous for neighboring neurons.
                    lowest_bin += tl.sum((finite & (code == 0)).to(tl.int32), 0)
                    cell = (role * cells + block * bins + code) * neurons + neuron[None, :]
                    tl.atomic_add(histogram + cell, 1, finite & (code > 0), sem="relaxed")
        out = (role * n_samples + sample) * neurons + neuron
        tl.store(peaks + out, peak, in_range)
        tl.store(tokens + out, peak_token, in_range)
        tl.store(sums + out, total, in_range)
        tl.store(squares + out, total_squares, in_range)
        tl.store(positive + out, above, in_range)
        tl.store(nonfinite + out, nonfinite_count, in_range)
        if role < 2:
            lowest_cell = (role * cells + block * bins) * neurons + neuron
            tl.atomic_add(histogram + lowest_cell, lowest_bin, in_range, sem="relaxed")
