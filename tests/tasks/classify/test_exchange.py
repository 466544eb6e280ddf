from fractions import Fraction
from math import comb, sqrt

import numpy as np
import pytest
from scipy import stats

from neuron_atlas.tasks.classify.exchange import exchange_p


def p_of(high_visual: int, n_visual: int, high_text: int, n_text: int) -> float:
    (p,) = exchange_p(*(np.array([count]) for count in (high_visual, n_visual, high_text, n_text)))
    return float(p)


def by_counting(high_visual: int, n_visual: int, high_text: int, n_text: int) -> float:
    """The same from whole numbers alone: all ways to deal the labels out."""
    total, high = n_visual + n_text, high_visual + high_text
    seen = abs(Fraction(high_visual, n_visual) - Fraction(high_text, n_text))
    ways = sum(
        comb(high, k) * comb(total - high, n_visual - k)
        for k in range(max(0, high - n_text), min(high, n_visual) + 1)
        if abs(Fraction(k, n_visual) - Fraction(high - k, n_text)) >= seen
    )
    return float(Fraction(ways, comb(total, n_visual)))


def random_tables(count: int, most: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    tables = []
    for _ in range(count):
        n_visual, n_text = (int(n) for n in rng.integers(1, most, 2))
        highs = rng.integers(0, [n_visual + 1, n_text + 1])
        tables.append((int(highs[0]), n_visual, int(highs[1]), n_text))
    return tables


def test_p_is_the_share_of_all_ways_to_deal_out_the_labels():
    tables = random_tables(300, 60, np.random.default_rng(1)) + random_tables(
        12, 3000, np.random.default_rng(2)
    )
    computed = exchange_p(*np.array(tables).T)
    np.testing.assert_allclose(computed, [by_counting(*table) for table in tables], rtol=1e-12)


def test_p_is_what_100_000_shuffles_of_the_labels_estimate_within_their_error():
    shuffles = 100_000
    rng = np.random.default_rng(3)
    for high_visual, n_visual, high_text, n_text in [(40, 170, 12, 90), (9, 200, 9, 60)]:
        total = n_visual + n_text
        high = np.arange(total) < high_visual + high_text
        shuffled = np.concatenate(
            [rng.permuted(np.tile(high, (5_000, 1)), axis=1) for _ in range(shuffles // 5_000)]
        )
        dealt = shuffled[:, :n_visual].sum(1) * total  # Whole numbers: ties are exact.
        mean = n_visual * (high_visual + high_text)
        estimate = (abs(dealt - mean) >= abs(high_visual * total - mean)).mean()
        p = p_of(high_visual, n_visual, high_text, n_text)
        assert 0.001 < p < 0.5
        assert abs(estimate - p) < 4 * sqrt(p * (1 - p) / shuffles)


@pytest.mark.parametrize(
    "table", [(812, 40_000, 61, 6_000), (3_000, 40_000, 500, 6_000), (1, 30_000, 9, 5_000)]
)
def test_both_tails_are_scipys(table):
    high_visual, n_visual, high_text, n_text = table
    high, total = high_visual + high_text, n_visual + n_text
    of_labels = stats.hypergeom(total, high, n_visual)
    k = np.arange(high + 1)
    extreme = abs(k * total - n_visual * high) >= abs(high_visual * total - n_visual * high)
    assert p_of(*table) == pytest.approx(of_labels.pmf(k[extreme]).sum(), rel=1e-9)


def test_where_both_tails_are_alike_it_is_fishers_exact_test():
    for high_visual, high_text in [(30, 14), (5, 12), (21, 20)]:
        table = [[high_visual, 100 - high_visual], [high_text, 100 - high_text]]
        p = p_of(high_visual, 100, high_text, 100)
        assert p == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)


def test_millions_of_tokens_keep_their_digits():
    # Normal with the hypergeometric's moments, with Yates's correction: right to about 1 / sigma.
    n_visual, n_text, high = 13_000_000, 2_000_000, 300_000
    chance = n_visual / (n_visual + n_text)
    sigma = sqrt(high * chance * (1 - chance) * (1 - high / (n_visual + n_text)))
    for z in (0.5, 2.0, 4.0):
        high_visual = round(high * chance + z * sigma)
        p = p_of(high_visual, n_visual, high - high_visual, n_text)
        edge = (high_visual - 0.5 - high * chance) / sigma
        assert p == pytest.approx(2 * stats.norm.sf(edge), rel=0.01)


def test_the_roles_are_on_the_same_footing():
    tables = np.array(random_tables(100, 200, np.random.default_rng(4)))
    swapped = exchange_p(*tables[:, [2, 3, 0, 1]].T)
    np.testing.assert_allclose(exchange_p(*tables.T), swapped, rtol=1e-12)


@pytest.mark.parametrize("table", [(0, 10, 0, 10), (10, 10, 10, 10), (3, 9, 1, 3), (4, 9, 0, 0)])
def test_without_a_difference_or_a_second_role_p_is_1(table):
    assert p_of(*table) == 1


def test_p_below_the_smallest_number_is_0_and_none_is_nan_or_above_1():
    rng = np.random.default_rng(5)
    n_visual, n_text = np.full(500, 13_000_000), np.full(500, 2_000_000)
    p = exchange_p(
        rng.binomial(n_visual, rng.uniform(0, 1, 500) ** 4),
        n_visual,
        rng.binomial(n_text, rng.uniform(0, 1, 500) ** 4),
        n_text,
    )
    assert ((p >= 0) & (p <= 1)).all()
    assert p_of(13_000_000, 13_000_000, 0, 2_000_000) == 0


def test_counts_whose_products_leave_64_bits_are_exact_too():
    n_visual, n_text, high = 4 * 10**10, 10**10, 10**10  # n_visual * high is above 2^63.
    sigma = sqrt(high * 0.8 * 0.2 * 0.8)
    high_visual = round(0.8 * high + 2 * sigma)
    p = p_of(high_visual, n_visual, high - high_visual, n_text)
    edge = (high_visual - 0.5 - 0.8 * high) / sigma
    assert p == pytest.approx(2 * stats.norm.sf(edge), rel=1e-4)
