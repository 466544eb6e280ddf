import numpy as np
import torch

from tasks.artifacts import ROLES
from tasks.capture.moments import Moments

CPU = torch.device("cpu")


def added(batches: list[np.ndarray], membership: list[np.ndarray]) -> Moments:
    moments = Moments(batches[0].shape[1], CPU)
    for values, member in zip(batches, membership, strict=True):
        moments.add(torch.from_numpy(values), torch.from_numpy(member))
    return moments


def spread(values: np.ndarray) -> np.ndarray:
    return np.square(values - values.mean(0)).sum(0)


def test_sums_are_apart_for_each_role_and_leave_out_what_has_none():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, 3)).astype(np.float32)
    role = rng.integers(-1, len(ROLES), 40)
    member = (role == np.arange(len(ROLES))[:, None]).astype(np.float32)
    moments = added([values[:25], values[25:]], [member[:, :25], member[:, 25:]])
    for index in range(len(ROLES)):
        mine = values[role == index].astype(np.float64)
        assert moments.tokens[index] == len(mine)
        mean, m2 = moments.mean_and_m2()
        np.testing.assert_allclose(mean[index], mine.mean(0), atol=1e-6)
        np.testing.assert_allclose(m2[index], spread(mine), rtol=1e-5)
        np.testing.assert_array_equal(moments.positive[index], (mine > 0).sum(0))


def test_small_values_are_not_lost_beside_a_long_history():
    values = np.full((1000, 1), 0.1, np.float32)
    member = np.zeros((len(ROLES), 1000), np.float32)
    member[0] = 1
    moments = added([values] * 2000, [member] * 2000)
    np.testing.assert_allclose(moments.mean_and_m2()[0][0], np.float32(0.1), rtol=1e-6)
    assert moments.tokens[0] == 2e6


def test_zero_is_not_positive():
    values = np.array([[0.0], [-0.0], [1e-45], [-1.0]], np.float32)
    member = np.ones((len(ROLES), 4), np.float32)
    assert added([values], [member]).positive[0].tolist() == [1]


def test_the_maximum_of_a_role_only_rises():
    moments = Moments(2, CPU)
    assert moments.maximum[1].tolist() == [-np.inf, -np.inf]
    for peaks in ([[-3.0, 5.0], [-4.0, 1.0]], [[-7.0, 6.0]], [[-np.inf, -np.inf]]):
        moments.raise_maximum(1, torch.tensor(peaks))
    assert moments.maximum[1].tolist() == [-3, 6]
    assert moments.maximum[0].tolist() == [-np.inf, -np.inf]
