"""Insert samples into a record's top N in the compiled pass, and describe them in their slots."""

from __future__ import annotations

import numpy as np
from numba import njit

from neuron_atlas.tasks.capture.sample_sums import ABOVE, CHUNK_NEURONS, PEAK, PEAK_TOKEN
from neuron_atlas.tasks.capture.top_n import EMPTY
from neuron_atlas.tasks.subject.batches import FIRST_TEXT
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

_FLOAT32_MAX = np.float32(np.finfo(np.float32).max)
_UNROLLED = 4
"""Places of a list of activations that one loop passes through; see _insert."""


@njit(nogil=True, cache=True)
def weakest_slots(keys: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weakest slot of each neuron and its peak: int32 and float32 [stop - start]."""
    slot = np.empty(stop - start, np.int32)
    floor = np.empty(stop - start, np.float32)
    for n in range(stop - start):
        slot[n] = _lowest(keys[start + n])
        floor[n] = _peak_of(keys[start + n, slot[n]])
    return slot, floor


@njit(nogil=True, cache=True)
def enter(
    sums: np.ndarray,
    position: np.ndarray,
    sample_id: int,
    peak_roles: np.ndarray,
    start: int,
    width: int,
    weakest: np.ndarray,
    floor: np.ndarray,
    ranking: tuple[np.ndarray, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Insert a sample where it beats the weakest exemplar.

    position: int32 [tokens] (see Batch). Updates `weakest` and `floor` (see weakest_slots). Returns
    the neurons of the chunk that it entered, and their slots.
    """
    keys, peak_positions = ranking[0], ranking[1]
    best = np.empty(width, np.float32)
    token = np.empty(width, np.int32)
    for n in range(width):
        best[n] = -np.inf
    for role in peak_roles:
        for n in range(width):
            # If several roles have equal peaks, the first role counts.
            peak = sums[role, PEAK * CHUNK_NEURONS + n]
            higher = peak > best[n]
            best[n] = peak if higher else best[n]
            role_token = np.int32(sums[role, PEAK_TOKEN * CHUNK_NEURONS + n])
            token[n] = role_token if higher else token[n]
    candidates = np.empty(width + 1, np.int32)
    count = 0
    for n in range(width):
        candidates[count] = n
        # Without a finite activation at these roles, the sample is not ranked.
        count += int((best[n] >= floor[n]) & (best[n] > -np.inf))
    entered = np.empty(count, np.int32)
    slots = np.empty(count, np.int32)
    n_entered = 0
    for index in range(count):
        n = candidates[index]
        key = _key_of(best[n], sample_id)
        slot = weakest[n]
        row = keys[start + n]
        if key > row[slot]:
            row[slot] = key
            peak_positions[start + n, slot] = position[token[n]]
            entered[n_entered], slots[n_entered] = n, slot
            n_entered += 1
            weakest[n] = _lowest(row)
            floor[n] = _peak_of(row[weakest[n]])
    return entered[:n_entered], slots[:n_entered]


@njit(nogil=True, cache=True)
def describe_entered(
    values: np.ndarray,
    roles: np.ndarray,
    position: np.ndarray,
    sums: np.ndarray,
    start: int,
    entered: np.ndarray,
    slots: np.ndarray,
    ranking: tuple[np.ndarray, ...],
) -> None:
    """Write what the record stores of a sample into the slots that it entered.

    values: [tokens, neurons] of the sample. The loops over the entered neurons compile to vector
    instructions.
    """
    _, _, top, text_peak_token, active, visual_sum, visual_sum_sq = ranking
    count = len(entered)
    if count == 0:
        return
    n_top = top.shape[3]
    places = -(-n_top // _UNROLLED) * _UNROLLED
    strongest = np.empty((2, places * CHUNK_NEURONS), np.int32)
    strongest[:] = _code_of(np.float32(-np.inf))
    gathered = np.empty(CHUNK_NEURONS, np.float32)
    row = np.empty(CHUNK_NEURONS, np.int32)
    total = np.zeros(count, np.float64)
    squares = np.zeros(count, np.float64)
    for token in range(len(roles)):
        role = roles[token]
        if role not in (VISUAL, TEXT):
            continue
        own = values[token, start : start + CHUNK_NEURONS]
        for index in range(count):
            gathered[index] = own[np.uint32(entered[index])]  # Signed indices are slower.
        for index in range(count):
            value = gathered[index]
            row[index] = _code_of(value if abs(value) <= _FLOAT32_MAX else np.float32(-np.inf))
        if role == VISUAL:
            for index in range(count):
                # Codes of positive numbers are their bits, and the code of 0 is 0.
                positive = np.float64(np.int32(max(row[index], np.int32(0))).view(np.float32))
                total[index] += positive
                squares[index] += positive * positive
        for place in range(0, places, _UNROLLED):
            _insert(strongest[role, place * CHUNK_NEURONS :], row, count)
    for index in range(count):
        n, slot = entered[index], slots[index]
        neuron = start + n
        for role in range(2):
            for place in range(n_top):
                code = strongest[role, place * CHUNK_NEURONS + index]
                top[role, neuron, slot, place] = _float_of(code)
            active[role, neuron, slot] = np.int32(sums[role, ABOVE * CHUNK_NEURONS + n])
        has_text = sums[TEXT, PEAK * CHUNK_NEURONS + n] > -np.inf
        peak_token = np.int32(sums[TEXT, PEAK_TOKEN * CHUNK_NEURONS + n])
        text_peak_token[neuron, slot] = position[peak_token] - FIRST_TEXT if has_text else -1
        visual_sum[neuron, slot] = np.float32(total[index])
        visual_sum_sq[neuron, slot] = np.float32(squares[index])


@njit(nogil=True, cache=True)
def _insert(strongest: np.ndarray, row: np.ndarray, count: int) -> None:
    """Insert one activation of each neuron into _UNROLLED places of its descending list.

    strongest: codes int32 [places, neurons]. row: codes int32 [neurons], replaced by those that
    drop out of these places. Codes, because maxima of integers compile to one instruction.
    """
    for index in range(count):
        code = row[index]
        first, second = strongest[index], strongest[CHUNK_NEURONS + index]
        third, fourth = strongest[2 * CHUNK_NEURONS + index], strongest[3 * CHUNK_NEURONS + index]
        strongest[index] = max(first, code)
        code = min(first, code)
        strongest[CHUNK_NEURONS + index] = max(second, code)
        code = min(second, code)
        strongest[2 * CHUNK_NEURONS + index] = max(third, code)
        code = min(third, code)
        strongest[3 * CHUNK_NEURONS + index] = max(fourth, code)
        row[index] = min(fourth, code)


@njit(nogil=True, cache=True)
def _lowest(keys: np.ndarray) -> int:
    """Return the index of the lowest key, in two loops that compile to vector instructions."""
    low = keys[0]
    for slot in range(len(keys)):
        low = min(low, keys[slot])
    found = 0
    for slot in range(len(keys)):
        found = max(found, slot if keys[slot] == low else 0)
    return found


@njit(nogil=True, cache=True)
def _code_of(value: np.float32) -> np.int32:
    """Return an integer that sorts like the float (see top_n.pack)."""
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(nogil=True, cache=True)
def _float_of(code: np.int32) -> np.float32:
    """Return the float of a code."""
    return np.int32(code ^ ((code >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@njit(nogil=True, cache=True)
def _key_of(peak: np.float32, sample_id: int) -> np.int64:
    """Return the key of a sample (see top_n.pack)."""
    code = np.int64(_code_of(np.float32(peak + np.float32(0))))  # -0.0 counts as 0.0.
    return (code << 32) | (np.int64(0xFFFFFFFF) - sample_id)


@njit(nogil=True, cache=True)
def _peak_of(key: np.int64) -> np.float32:
    """Return the peak of a key (see top_n.unpack); -inf for an empty slot."""
    return np.float32(-np.inf) if key == EMPTY else _float_of(np.int32(key >> 32))
