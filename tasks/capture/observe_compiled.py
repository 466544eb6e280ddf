"""Update a record in one compiled pass over a batch's activations, for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numba import njit

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.traces import clip_to_float16
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

_CHUNK_NEURONS = 512
"""Neurons per chunk: their running sums and bins fit into a core's L1 and L2 cache."""

_MIN_NEURONS_PER_THREAD = 1024
"""With fewer neurons, starting a thread costs more than it saves."""

_NO_SLOT = -1


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Update the record with a batch's activations; see `tasks.capture.observe.observe`."""
    values = activations.float().contiguous()
    n_samples, _, neurons = values.shape
    statistics = record.statistics
    statistics.tokens += torch.bincount(batch.roles[batch.roles >= 0].long(), minlength=len(ROLES))
    peaks = torch.full((len(ROLES), n_samples, neurons), -torch.inf)
    tokens = torch.zeros(peaks.shape, dtype=torch.int32)
    slots = torch.full((n_samples, neurons), _NO_SLOT, dtype=torch.int16)
    inputs = _arrays(values, values.view(torch.int32), batch.roles, batch.blocks)
    peak_arrays = _arrays(peaks, tokens)
    sums = _arrays(
        statistics.total,
        statistics.squares,
        statistics.positive,
        statistics.nonfinite,
        statistics.maximum,
        statistics.histogram,
    )
    ranking = _arrays(record.keys, record.peak_positions)
    bits = peaks.view(torch.int32).numpy()
    stored = traces = np.empty((0, 0, 0), np.int16)
    if record.traces is not None:
        traces = record.traces.view(torch.int16).numpy()
        stored = clip_to_float16(values).view(torch.int16).numpy()

    def work(start: int, stop: int) -> None:
        _accumulate(*inputs, start, stop, *peak_arrays, *sums)
        _enter(
            *peak_arrays,
            bits,
            np.array(record.peak_roles),
            batch.roles.numpy(),
            batch.sample_ids.numpy(),
            record.layout.visual,
            start,
            stop,
            *ranking,
            slots.numpy(),
        )
        if record.traces is not None:
            _store(
                stored,
                batch.roles.numpy(),
                record.layout.visual,
                slots.numpy(),
                start,
                stop,
                traces,
            )

    _over_neurons(neurons, work)


def _arrays(*tensors: torch.Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


def _over_neurons(neurons: int, work: Callable[[int, int], None]) -> None:
    """Call `work(start, stop)` for all chunks of neurons, on up to torch's number of threads."""
    threads = min(torch.get_num_threads(), max(1, neurons // _MIN_NEURONS_PER_THREAD))
    edges = [neurons * part // threads for part in range(threads + 1)]

    def work_on(part: int) -> None:
        for start in range(edges[part], edges[part + 1], _CHUNK_NEURONS):
            work(start, min(start + _CHUNK_NEURONS, edges[part + 1]))

    futures = [_threads(threads).submit(work_on, part) for part in range(1, threads)]
    work_on(0)
    for future in futures:
        future.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="observe")


@njit(nogil=True, cache=True)
def _accumulate(
    values: np.ndarray,
    bits: np.ndarray,
    roles: np.ndarray,
    blocks: np.ndarray,
    start: int,
    stop: int,
    peaks: np.ndarray,
    tokens: np.ndarray,
    total: np.ndarray,
    squares: np.ndarray,
    positive: np.ndarray,
    nonfinite: np.ndarray,
    maximum: np.ndarray,
    histogram: np.ndarray,
) -> None:
    """Add up sums, bins and peaks of the neurons from `start` to `stop`. The inner loops run over
    neurons, which are contiguous in memory, so they compile to vector instructions."""
    width = stop - start
    n_roles = len(peaks)
    # Separate arrays: the compiler vectorizes only if it can prove that arrays do not alias.
    sums = np.empty((n_roles, width), np.float32)
    sums_of_squares = np.empty((n_roles, width), np.float32)
    counts_above = np.empty((n_roles, width), np.int32)
    counts_nonfinite = np.empty((n_roles, width), np.int32)
    binned = np.empty((2, width * BINS), np.uint16)
    cell = np.empty(width, np.int32)
    for sample in range(values.shape[0]):
        sums[:] = 0
        sums_of_squares[:] = 0
        counts_above[:] = 0
        counts_nonfinite[:] = 0
        binned[:] = 0
        for token in range(values.shape[1]):
            role = roles[sample, token]
            if role < 0:
                continue
            row = values[sample, token, start:stop]
            row_bits = bits[sample, token, start:stop]
            peak = peaks[role, sample, start:stop]
            peak_token = tokens[role, sample, start:stop]
            sum_1, sum_2 = sums[role], sums_of_squares[role]
            above, nonfinite_count = counts_above[role], counts_nonfinite[role]
            for n in range(width):
                value = row[n]
                finite = (row_bits[n] & np.int32(0x7FFFFFFF)) < np.int32(0x7F800000)
                number = value if finite else np.float32(0)
                sum_1[n] += number
                sum_2[n] += number * number
                above[n] += np.int32(number > 0)
                nonfinite_count[n] += np.int32(not finite)
                higher = finite & (value > peak[n])
                peak[n] = value if higher else peak[n]
                peak_token[n] = np.int32(token) if higher else peak_token[n]
            if role in (VISUAL, TEXT):
                for n in range(width):
                    code = (row_bits[n] >> np.int32(DROPPED_BITS)) - np.int32(CODE_OF_BIN_0)
                    code = min(max(code, np.int32(0)), np.int32(BINS - 1))
                    cell[n] = code * np.int32(width) + np.int32(n)
                role_bins = binned[role]
                for n in range(width):
                    finite = (row_bits[n] & np.int32(0x7FFFFFFF)) < np.int32(0x7F800000)
                    role_bins[cell[n]] += np.uint16(finite)
        for role in range(n_roles):
            for n in range(width):
                total[role, start + n] += sums[role, n]
                squares[role, start + n] += sums_of_squares[role, n]
                positive[role, start + n] += counts_above[role, n]
                nonfinite[role, start + n] += counts_nonfinite[role, n]
                sample_peak = peaks[role, sample, start + n]
                maximum[role, start + n] = max(maximum[role, start + n], sample_peak)
        first = blocks[sample] * BINS
        for role in range(2):
            for code in range(BINS):
                for n in range(width):
                    histogram[role, first + code, start + n] += binned[role, code * width + n]


@njit(nogil=True, cache=True)
def _enter(
    peaks: np.ndarray,
    tokens: np.ndarray,
    peak_bits: np.ndarray,
    peak_roles: np.ndarray,
    roles: np.ndarray,
    sample_ids: np.ndarray,
    layout_visual: int,
    start: int,
    stop: int,
    keys: np.ndarray,
    peak_positions: np.ndarray,
    slots: np.ndarray,
) -> None:
    """Insert every sample that beats a neuron's weakest exemplar, and write its slot to `slots`
    [batch, neurons]. If two samples entered the same slot, the later one holds it."""
    position = np.zeros(roles.shape, np.int32)
    for sample in range(roles.shape[0]):
        n_visual = n_text = 0
        for token in range(roles.shape[1]):
            if roles[sample, token] == VISUAL:
                position[sample, token] = n_visual
                n_visual += 1
            elif roles[sample, token] == TEXT:
                position[sample, token] = layout_visual + n_text
                n_text += 1
    for n in range(start, stop):
        weakest = keys[n].argmin()
        for sample in range(roles.shape[0]):
            winner = peak_roles[0]
            for role in peak_roles:
                if peaks[role, sample, n] > peaks[winner, sample, n]:
                    winner = role
            if peaks[winner, sample, n] == -np.inf:  # No finite activation at these roles.
                continue
            code = np.int64(peak_bits[winner, sample, n])
            if peaks[winner, sample, n] == 0:  # -0.0 counts as 0.0.
                code = np.int64(0)
            if code < 0:
                code = code ^ np.int64(0x7FFFFFFF)
            key = (code << 32) | (np.int64(0xFFFFFFFF) - sample_ids[sample])
            if key > keys[n, weakest]:
                keys[n, weakest] = key
                peak_positions[n, weakest] = position[sample, tokens[winner, sample, n]]
                slots[sample, n] = weakest
                weakest = keys[n].argmin()


@njit(nogil=True, cache=True)
def _store(
    stored: np.ndarray,
    roles: np.ndarray,
    layout_visual: int,
    slots: np.ndarray,
    start: int,
    stop: int,
    traces: np.ndarray,
) -> None:
    """Write the traces of the samples that entered. float16 values are copied as integer bits."""
    n_tokens = roles.shape[1]
    source = np.empty(n_tokens, np.int64)
    target = np.empty(n_tokens, np.int64)
    for sample in range(roles.shape[0]):
        n_visual = n_text = 0
        for token in range(n_tokens):
            role = roles[sample, token]
            if role in (VISUAL, TEXT):
                source[n_visual + n_text] = token
                if role == VISUAL:
                    target[n_visual + n_text] = n_visual
                    n_visual += 1
                else:
                    target[n_visual + n_text] = layout_visual + n_text
                    n_text += 1
        for n in range(start, stop):
            slot = slots[sample, n]
            if slot >= 0:
                for index in range(n_visual + n_text):
                    traces[n, slot, target[index]] = stored[sample, source[index], n]
