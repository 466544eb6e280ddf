import numpy as np
import pytest
import torch

from neuron_atlas.tasks.capture.top_n import EMPTY, insert, pack, unpack

LARGEST_ID = 2**31 - 1
ODD = [0.0, -0.0, 1.0, -1.0, 3.5, -3.5, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3.4e38]


def full_sort(peaks: np.ndarray, sample_ids: np.ndarray, n: int) -> list[list[tuple[float, int]]]:
    """The (peak, sample_id) of every neuron's top n by sorting all [samples, neurons] peaks."""
    numbers = np.where(np.isnan(peaks), -np.inf, peaks) + 0.0
    return [
        sorted(
            zip(column.tolist(), sample_ids.tolist(), strict=True),
            key=lambda pair: (-pair[0], pair[1]),
        )[:n]
        for column in numbers.T
    ]


def running(
    peaks: np.ndarray, sample_ids: np.ndarray, n: int, sizes: list[int]
) -> list[list[tuple[float, int]]]:
    """The same from a stream of batches of the given sizes."""
    keys = torch.full((peaks.shape[1], n), EMPTY)
    start = 0
    for size in sizes:
        batch = slice(start, start + size)
        ids = torch.from_numpy(sample_ids[batch])[:, None]
        insert(keys, pack(torch.from_numpy(peaks[batch]), ids).T.contiguous())
        start += size
    ranked, ids = unpack(keys.sort(dim=1, descending=True).values)
    return [
        [(peak, sample_id) for peak, sample_id in zip(row, numbers, strict=True) if sample_id >= 0]
        for row, numbers in zip(ranked.tolist(), ids.tolist(), strict=True)
    ]


def batches(rng: np.random.Generator, samples: int, largest: int) -> list[int]:
    sizes = []
    while sum(sizes) < samples:
        sizes.append(min(int(rng.integers(1, largest + 1)), samples - sum(sizes)))
    return sizes


@pytest.mark.parametrize("seed", range(40))
def test_a_running_top_n_is_what_a_full_sort_gives(seed):
    rng = np.random.default_rng(seed)
    samples, neurons, n = (int(rng.integers(1, most)) for most in (80, 7, 13))
    peaks = rng.normal(size=(samples, neurons)).astype(np.float32)
    if seed % 2:  # Few distinct values, so that most ranks are ties.
        peaks = peaks.round().astype(np.float32)
    odd = rng.random(peaks.shape) < 0.2
    peaks[odd] = rng.choice(np.array(ODD, np.float32), odd.sum())
    sample_ids = rng.choice(LARGEST_ID, samples, replace=False).astype(np.int64)
    sizes = batches(rng, samples, largest=[1, 5, 40][seed % 3])
    assert running(peaks, sample_ids, n, sizes) == full_sort(peaks, sample_ids, n)


def test_among_equal_peaks_the_lower_sample_id_ranks_first_whenever_it_comes():
    peaks = np.full((6, 1), 2.5, np.float32)
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 1, 2]):
        ranked = running(peaks, np.array(order), 3, [2, 2, 2])
        assert ranked == [[(2.5, 0), (2.5, 1), (2.5, 2)]]


def test_minus_zero_and_zero_are_one_value():
    peaks = np.array([[-0.0], [0.0], [-0.0]], np.float32)
    assert running(peaks, np.array([7, 8, 9]), 2, [3]) == [[(0.0, 7), (0.0, 8)]]


def test_a_peak_that_is_no_number_ranks_below_every_number():
    peaks = np.array([[np.nan], [-1e30], [np.inf]], np.float32)
    assert running(peaks, np.arange(3), 2, [3]) == [[(np.inf, 2), (float(peaks[1, 0]), 1)]]


def test_fewer_samples_than_slots_leave_slots_empty():
    keys = torch.full((1, 5), EMPTY)
    insert(keys, pack(torch.tensor([[-2.0, -4.0]]), torch.tensor([3, 4])))
    peaks, ids = unpack(keys.sort(dim=1, descending=True).values)
    assert ids.tolist() == [[3, 4, -1, -1, -1]]
    assert peaks[0, :2].tolist() == [-2, -4]
    assert peaks[0, 2:].isnan().all()


def test_unpacking_gives_back_what_was_packed():
    rng = np.random.default_rng(0)
    any_bits = rng.integers(-(2**31), 2**31, 2000, dtype=np.int64).astype(np.int32)
    peaks = np.concatenate([any_bits.view(np.float32), np.array(ODD, np.float32)])
    peaks = peaks[~np.isnan(peaks)]
    ids = rng.integers(0, LARGEST_ID, len(peaks))
    ids[:2] = 0, LARGEST_ID
    back, back_ids = unpack(pack(torch.from_numpy(peaks), torch.from_numpy(ids)))
    assert back.numpy().tolist() == (peaks + 0.0).tolist()
    assert back_ids.tolist() == ids.tolist()


def test_keys_sort_as_their_peaks_do_and_above_an_empty_slot():
    peaks = torch.tensor([-torch.inf, -3.4e38, -1, -1e-45, 0, 1e-45, 1, 3.4e38, torch.inf])
    keys = pack(peaks, torch.tensor(LARGEST_ID))
    assert keys.tolist() == sorted(set(keys.tolist()))
    assert keys.min() > EMPTY


def test_half_precision_peaks_are_packed_at_their_own_value():
    peaks = torch.tensor([0.1, -7.25], dtype=torch.bfloat16)
    back, _ = unpack(pack(peaks, torch.tensor([1, 2])))
    assert back.tolist() == peaks.float().tolist()


@pytest.mark.parametrize("seed", range(5))
def test_what_is_stored_beside_a_slot_stays_right_if_written_only_on_entry(seed):
    rng = np.random.default_rng(seed)
    keys = torch.full((4, 6), EMPTY)
    beside = torch.full((4, 6), -1)
    for start in range(0, 60, 5):
        ids = torch.arange(start, start + 5)
        peaks = torch.from_numpy(rng.integers(-3, 9, (4, 5)).astype(np.float32))
        before = keys.clone()
        entered = insert(keys, pack(peaks, ids))
        beside[entered.neuron, entered.slot] = ids[entered.sample]
        changed = torch.zeros_like(keys, dtype=torch.bool)
        changed[entered.neuron, entered.slot] = True
        assert torch.equal(keys[~changed], before[~changed])
        assert len(entered.neuron) == changed.sum()
    assert torch.equal(beside, unpack(keys)[1])


def test_samples_that_beat_nobody_enter_nowhere():
    keys = pack(torch.tensor([[5.0, 6.0]]), torch.tensor([0, 1]))
    before = keys.clone()
    entered = insert(keys, pack(torch.tensor([[5.0, 1.0]]), torch.tensor([2, 3])))
    assert [len(part) for part in entered] == [0, 0, 0]
    assert torch.equal(keys, before)
