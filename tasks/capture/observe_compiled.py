"""Update a record in one compiled pass over a batch's activations, for CPUs.

Neurons are processed in chunks. All work on one sample and one chunk is done while the sample's
activations are in a core's L2 cache.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numba import njit

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.enter_compiled import describe_entered, enter, weakest_slots
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.sample_sums import (
    ABOVE,
    CHUNK_NEURONS,
    NONFINITE,
    PEAK,
    PEAK_TOKEN,
    SQUARES,
    SUM,
    SUMS,
)
from neuron_atlas.tasks.subject.batches import Batch

_MIN_NEURONS_PER_THREAD = 1024
"""With fewer neurons, starting a thread costs more than it saves."""

_ROLES = len(ROLES)
_FLOAT32_MAX = np.float32(np.finfo(np.float32).max)
_DROPPED_BITS = np.int32(DROPPED_BITS)
_CODE_OF_BIN_0 = np.int32(CODE_OF_BIN_0)
_LAST_BIN = np.int32(BINS - 1)
_MOST_COUNTED = 2**16 - 1


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Update the record with a batch's activations; see `tasks.capture.observe.observe`."""
    values = activations.float().contiguous()
    statistics, slots = record.statistics, record.slots
    counts = torch.bincount(batch.roles[batch.roles >= 0].long(), minlength=_ROLES)
    statistics.tokens += counts[:, None]
    # Samples of one block come together, so that their bins are added to the histogram once.
    order = batch.blocks.argsort(stable=True)
    inputs = _arrays(
        values,
        values.view(torch.int32),
        batch.roles,
        batch.positions,
        batch.blocks,
        batch.sample_ids,
        order,
    )
    sums = _arrays(
        statistics.total,
        statistics.squares,
        statistics.positive,
        statistics.nonfinite,
        statistics.maximum,
        statistics.histogram,
    )
    ranking = _arrays(
        record.keys,
        record.peak_positions,
        slots.top,
        slots.text_peak_token,
        slots.active,
        slots.visual_sum,
        slots.visual_sum_sq,
    )
    peak_roles = np.array(record.peak_roles)

    def work(start: int, stop: int) -> None:
        _observe(start, stop, peak_roles, inputs, sums, ranking)

    _over_neurons(values.shape[2], work)


def _arrays(*tensors: torch.Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


def _over_neurons(neurons: int, work: Callable[[int, int], None]) -> None:
    """Call `work(start, stop)` for all chunks of neurons, on up to torch's number of threads."""
    threads = min(torch.get_num_threads(), max(1, neurons // _MIN_NEURONS_PER_THREAD))
    edges = [neurons * part // threads for part in range(threads + 1)]

    def work_on(part: int) -> None:
        for start in range(edges[part], edges[part + 1], CHUNK_NEURONS):
            work(start, min(start + CHUNK_NEURONS, edges[part + 1]))

    futures = [_threads(threads).submit(work_on, part) for part in range(1, threads)]
    work_on(0)
    for future in futures:
        future.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="observe")


@njit(nogil=True, cache=True)
def _observe(
    start: int,
    stop: int,
    peak_roles: np.ndarray,
    inputs: tuple[np.ndarray, ...],
    statistics: tuple[np.ndarray, ...],
    ranking: tuple[np.ndarray, ...],
) -> None:
    """Update the record of the neurons from `start` to `stop`, at most CHUNK_NEURONS."""
    values, bits, roles, positions, blocks, sample_ids, order = inputs
    histogram = statistics[-1]
    width = stop - start
    sums = np.empty((_ROLES, SUMS * CHUNK_NEURONS), np.float32)
    # One more bin than the histogram: infinite and NaN activations are counted there and dropped.
    binned = np.zeros((2, (BINS + 1) * CHUNK_NEURONS), np.uint16)
    cell = np.empty(CHUNK_NEURONS, np.int32)
    weakest, floor = weakest_slots(ranking[0], start, stop)
    n_counted = 0
    for index in range(len(order)):
        sample = order[index]
        sums[:] = 0
        for role in range(_ROLES):
            sums[role, PEAK * CHUNK_NEURONS : (PEAK + 1) * CHUNK_NEURONS] = -np.inf
        for token in range(values.shape[1]):
            role = roles[sample, token]
            if role >= 0:
                _add(values[sample, token, start:stop], token, sums[role])
                if role < 2:
                    _count(bits[sample, token, start:stop], cell, binned[role])
        n_counted += values.shape[1]
        last = index == len(order) - 1 or blocks[order[index + 1]] != blocks[sample]
        if last or n_counted + values.shape[1] > _MOST_COUNTED:
            _add_bins(binned, histogram, blocks[sample] * BINS, start, width)
            n_counted = 0
        _add_sums(sums, statistics, start, width)
        entered, entered_slots = enter(
            sums,
            positions[sample],
            sample_ids[sample],
            peak_roles,
            start,
            width,
            weakest,
            floor,
            ranking,
        )
        describe_entered(
            values[sample],
            roles[sample],
            positions[sample],
            sums,
            start,
            entered,
            entered_slots,
            ranking,
        )


@njit(nogil=True, cache=True)
def _add(row: np.ndarray, token: int, sums: np.ndarray) -> None:
    """Add a token's activations to the sums of its sample and role (see sample_sums). The loop
    over neurons compiles to vector instructions."""
    number = np.float32(token)
    for n in range(len(row)):
        value = row[n]
        finite = abs(value) <= _FLOAT32_MAX
        known = value if finite else np.float32(0)
        sums[SUM * CHUNK_NEURONS + n] += known
        sums[SQUARES * CHUNK_NEURONS + n] += known * known
        sums[ABOVE * CHUNK_NEURONS + n] += np.float32(1) if known > 0 else np.float32(0)
        sums[NONFINITE * CHUNK_NEURONS + n] += np.float32(0) if finite else np.float32(1)
        ranked = value if finite else np.float32(-np.inf)
        peak = sums[PEAK * CHUNK_NEURONS + n]
        # Tokens ascend, so the last one that raised the peak is the maximum of those that did.
        # max() compiles to one instruction; a conditional store is slow on some processors.
        raising = number if ranked > peak else np.float32(0)
        sums[PEAK * CHUNK_NEURONS + n] = max(ranked, peak)
        peak_token = sums[PEAK_TOKEN * CHUNK_NEURONS + n]
        sums[PEAK_TOKEN * CHUNK_NEURONS + n] = max(raising, peak_token)


@njit(nogil=True, cache=True)
def _count(row: np.ndarray, cell: np.ndarray, binned: np.ndarray) -> None:
    """Count a token's activations, given by their bits, into [bins, neurons]."""
    for n in range(len(row)):
        code = (row[n] >> _DROPPED_BITS) - _CODE_OF_BIN_0
        code = min(max(code, np.int32(0)), _LAST_BIN)
        finite = (row[n] & np.int32(0x7FFFFFFF)) < np.int32(0x7F800000)
        code = code if finite else np.int32(BINS)
        cell[n] = code * np.int32(CHUNK_NEURONS) + np.int32(n)
    for n in range(len(row)):
        binned[cell[n]] += np.uint16(1)


@njit(nogil=True, cache=True)
def _add_bins(
    binned: np.ndarray, histogram: np.ndarray, first: int, start: int, width: int
) -> None:
    """Add the counts to the cells of the histogram from `first`, and clear them."""
    for role in range(2):
        for code in range(BINS):
            counts = binned[role, code * CHUNK_NEURONS : code * CHUNK_NEURONS + width]
            total = histogram[role, first + code, start : start + width]
            for n in range(width):
                total[n] += counts[n]
    binned[:] = 0


@njit(nogil=True, cache=True)
def _add_sums(sums: np.ndarray, statistics: tuple[np.ndarray, ...], start: int, width: int) -> None:
    """Add the sums of one sample to the statistics."""
    total, squares, positive, nonfinite, maximum, _ = statistics
    for role in range(_ROLES):
        for n in range(width):
            total[role, start + n] += sums[role, SUM * CHUNK_NEURONS + n]
            squares[role, start + n] += sums[role, SQUARES * CHUNK_NEURONS + n]
        for n in range(width):
            positive[role, start + n] += np.int64(sums[role, ABOVE * CHUNK_NEURONS + n])
            nonfinite[role, start + n] += np.int64(sums[role, NONFINITE * CHUNK_NEURONS + n])
        for n in range(width):
            peak = sums[role, PEAK * CHUNK_NEURONS + n]
            maximum[role, start + n] = max(maximum[role, start + n], peak)
