from itertools import product

import numpy as np
import pytest

from neuron_atlas.tasks.statistics.sign_flips import two_sided_p, upper_p

PATTERNS = np.array(list(product([1, -1], repeat=10)))


def test_p_is_the_share_of_all_patterns_of_signs_that_reach_the_sum():
    values = np.random.default_rng(1).normal(0.3, 1, (200, 10))
    sums = values @ PATTERNS.T
    seen = values.sum(1, keepdims=True)
    rounding = 1e-12
    np.testing.assert_array_equal(upper_p(values), (sums >= seen - rounding).mean(1))
    np.testing.assert_array_equal(two_sided_p(values), (abs(sums) >= abs(seen) - rounding).mean(1))


def test_equal_sums_count_as_reached_also_where_they_are_rounded_otherwise():
    thirds = np.random.default_rng(2).integers(-3, 4, (300, 10))
    sums = thirds @ PATTERNS.T
    seen = thirds.sum(1, keepdims=True)
    np.testing.assert_array_equal(upper_p(thirds / 3), (sums >= seen).mean(1))
    np.testing.assert_array_equal(two_sided_p(thirds / 3), (abs(sums) >= abs(seen)).mean(1))


def test_sixteen_blocks_that_agree_give_the_smallest_p_there_is():
    agreeing = np.random.default_rng(3).uniform(1, 2, (5, 16))
    assert set(two_sided_p(agreeing)) == set(two_sided_p(-agreeing)) == {2 / 2**16}
    assert set(upper_p(agreeing)) == {1 / 2**16}
    assert set(upper_p(-agreeing)) == {1.0}


def test_a_block_without_a_value_is_as_if_it_were_not_there():
    values = np.random.default_rng(4).normal(0.3, 1, (100, 16))
    values[:, [2, 3, 7, 9, 12, 15]] = 0
    there = np.delete(values, [2, 3, 7, 9, 12, 15], axis=1)
    np.testing.assert_array_equal(two_sided_p(values), two_sided_p(there))
    np.testing.assert_array_equal(upper_p(values), upper_p(there))


@pytest.mark.parametrize("blocks", [1, 7, 16])
def test_values_that_cancel_or_are_absent_give_1(blocks):
    nothing = np.zeros((2, blocks))
    assert set(two_sided_p(nothing)) == set(upper_p(nothing)) == {1.0}
    assert two_sided_p(np.array([[1.0, -1.0, 0.0]])) == 1


def test_a_single_loud_block_is_no_evidence_however_loud():
    values = np.full((1, 16), -0.01)
    values[0, 5] = 1000.0
    assert upper_p(values) == 0.5


def test_under_the_null_p_is_at_most_a_as_often_as_a():
    # Blocks of very different spread, as of a dataset with few or long samples.
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, (4000, 16)) * rng.exponential(1, 16)
    for test in (two_sided_p, upper_p):
        p = test(values)
        for a in (0.001, 0.01, 0.05, 0.2, 0.5):
            assert (p <= a).mean() <= a + 4 * np.sqrt(a * (1 - a) / len(p))
        assert (p <= 0.05).mean() > 0.04


def test_no_neurons_are_no_error():
    assert two_sided_p(np.zeros((0, 16))).shape == upper_p(np.zeros((0, 16))).shape == (0,)
