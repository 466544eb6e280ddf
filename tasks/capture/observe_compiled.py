"""The record of a batch in one compiled pass over its activations: for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numba import njit

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.batch import Batch
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.traces import as_stored
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

_NEURONS_AT_ONCE = 512
"""Neurons whose running sums and bins stay in a core's nearest caches."""

_NEURONS_AT_LEAST = 1024
"""Neurons for each thread: with fewer, waking it costs more than it helps."""

_NO_SLOT = -1


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """See tasks.capture.observe."""
    values = activations.float().contiguous()
    n_samples, _, neurons = values.shape
    tally = record.tally
    tally.tokens += torch.bincount(batch.roles[batch.roles >= 0].long(), minlength=len(ROLES))
    peaks = torch.full((len(ROLES), n_samples, neurons), -torch.inf)
    tokens = torch.zeros(peaks.shape, dtype=torch.int32)
    slots = torch.full((n_samples, neurons), _NO_SLOT, dtype=torch.int16)
    seen = _arrays(values, values.view(torch.int32), batch.roles, batch.blocks)
    found = _arrays(peaks, tokens)
    sums = _arrays(
        tally.total, tally.squares, tally.positive, tally.nonfinite, tally.maximum, tally.histogram
    )
    ranked = _arrays(record.keys, record.peak_places)
    bits = peaks.view(torch.int32).numpy()
    stored = traces = np.empty((0, 0, 0), np.int16)
    if record.traces is not None:
        traces = record.traces.view(torch.int16).numpy()
        stored = as_stored(values).view(torch.int16).numpy()

    def work(start: int, stop: int) -> None:
        _tally(*seen, start, stop, *found, *sums)
        _enter(
            *found,
            bits,
            np.array(record.peak_roles),
            batch.roles.numpy(),
            batch.sample_ids.numpy(),
            record.layout.visual,
            start,
            stop,
            *ranked,
            slots.numpy(),
        )
        if record.traces is not None:
            _keep(
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
    """Call `work(start, stop)` for all neurons, on as many threads as torch computes with."""
    threads = min(torch.get_num_threads(), max(1, neurons // _NEURONS_AT_LEAST))
    edges = [neurons * part // threads for part in range(threads + 1)]

    def share(part: int) -> None:
        for start in range(edges[part], edges[part + 1], _NEURONS_AT_ONCE):
            work(start, min(start + _NEURONS_AT_ONCE, edges[part + 1]))

    others = [_threads(threads).submit(share, part) for part in range(1, threads)]
    share(0)
    for other in others:
        other.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="observe")


@njit(nogil=True, cache=True)
def _tally(
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
    """Sums, bins and peaks of the neurons from `start` to `stop`; the inner loops run over
    neurons, which lie side by side, so that they compile to vector instructions."""
    width = stop - start
    n_roles = len(peaks)
    # An array each: the compiler makes vector instructions only where it can tell arrays apart.
    sums = np.empty((n_roles, width), np.float32)
    sums_of_squares = np.empty((n_roles, width), np.float32)
    counts_above = np.empty((n_roles, width), np.int32)
    counts_odd = np.empty((n_roles, width), np.int32)
    binned = np.empty((2, width * BINS), np.uint16)
    cell = np.empty(width, np.int32)
    for sample in range(values.shape[0]):
        sums[:] = 0
        sums_of_squares[:] = 0
        counts_above[:] = 0
        counts_odd[:] = 0
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
            above, odd = counts_above[role], counts_odd[role]
            for n in range(width):
                value = row[n]
                finite = (row_bits[n] & np.int32(0x7FFFFFFF)) < np.int32(0x7F800000)
                number = value if finite else np.float32(0)
                sum_1[n] += number
                sum_2[n] += number * number
                above[n] += np.int32(number > 0)
                odd[n] += np.int32(not finite)
                higher = finite & (value > peak[n])
                peak[n] = value if higher else peak[n]
                peak_token[n] = np.int32(token) if higher else peak_token[n]
            if role in (VISUAL, TEXT):
                for n in range(width):
                    code = (row_bits[n] >> np.int32(DROPPED_BITS)) - np.int32(CODE_OF_BIN_0)
                    code = min(max(code, np.int32(0)), np.int32(BINS - 1))
                    cell[n] = code * np.int32(width) + np.int32(n)
                mine = binned[role]
                for n in range(width):
                    finite = (row_bits[n] & np.int32(0x7FFFFFFF)) < np.int32(0x7F800000)
                    mine[cell[n]] += np.uint16(finite)
        for role in range(n_roles):
            for n in range(width):
                total[role, start + n] += sums[role, n]
                squares[role, start + n] += sums_of_squares[role, n]
                positive[role, start + n] += counts_above[role, n]
                nonfinite[role, start + n] += counts_odd[role, n]
                peak_here = peaks[role, sample, start + n]
                maximum[role, start + n] = max(maximum[role, start + n], peak_here)
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
    peak_places: np.ndarray,
    slots: np.ndarray,
) -> None:
    """Put every sample that beats a neuron's weakest into its slot, and say which in `slots`
    [batch, neurons]; of two in one slot the later sample holds it."""
    place = np.zeros(roles.shape, np.int32)
    for sample in range(roles.shape[0]):
        n_visual = n_text = 0
        for token in range(roles.shape[1]):
            if roles[sample, token] == VISUAL:
                place[sample, token] = n_visual
                n_visual += 1
            elif roles[sample, token] == TEXT:
                place[sample, token] = layout_visual + n_text
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
            if peaks[winner, sample, n] == 0:  # Also where it is -0.0.
                code = np.int64(0)
            if code < 0:
                code = code ^ np.int64(0x7FFFFFFF)
            key = (code << 32) | (np.int64(0xFFFFFFFF) - sample_ids[sample])
            if key > keys[n, weakest]:
                keys[n, weakest] = key
                peak_places[n, weakest] = place[sample, tokens[winner, sample, n]]
                slots[sample, n] = weakest
                weakest = keys[n].argmin()


@njit(nogil=True, cache=True)
def _keep(
    stored: np.ndarray,
    roles: np.ndarray,
    layout_visual: int,
    slots: np.ndarray,
    start: int,
    stop: int,
    traces: np.ndarray,
) -> None:
    """Write the traces of the samples that entered. Bits of float16 are moved as integers."""
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
