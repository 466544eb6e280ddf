import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from neuron_atlas.tasks.score.ranks import RankScores, rank_scores


def compared(real, predicted) -> RankScores:
    """Of visual and text tokens; active ones are above 0.5."""
    sides = [tuple(np.array(side, dtype=np.float16) for side in pair) for pair in (real, predicted)]
    active = tuple(side > 0.5 for side in sides[0])
    return rank_scores(sides[0], sides[1], active)


def drawn(seed: int, ties: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    real = [rng.normal(size=n).astype(np.float16) for n in (300, 120)]
    predicted = [(x + rng.normal(size=len(x))).astype(np.float16) for x in real]
    if ties:
        real, predicted = ([np.round(side) for side in pair] for pair in (real, predicted))
    return real, predicted


def scopes(pair) -> list[np.ndarray]:
    return [np.concatenate(pair), *pair]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_scipys_over_all_visual_and_text_tokens(seed, ties):
    real, predicted = drawn(seed, ties)
    expected = [
        spearmanr(x, y).statistic for x, y in zip(scopes(real), scopes(predicted), strict=True)
    ]
    assert compared(real, predicted).spearman == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_auroc_is_mann_whitneys_statistic_over_all_pairs(seed, ties):
    real, predicted = drawn(seed, ties)
    found = compared(real, predicted)
    for place, (x, y) in enumerate(zip(scopes(real), scopes(predicted), strict=True)):
        fired, silent = y[x > 0.5].astype(float), y[x <= 0.5].astype(float)
        expected = mannwhitneyu(fired, silent).statistic / (len(fired) * len(silent))
        assert found.auroc[place] == pytest.approx(expected, abs=1e-12)
        assert found.n_active[place] == len(fired)


def test_by_hand():
    """Active tokens have predictions 3 and 1, the others 2, 1 and 0: of six pairs, 3 beats three,
    and 1 beats one and draws with one."""
    found = compared(([9, 0, 9, 0], [0]), ([3, 2, 1, 1], [0]))
    assert found.auroc[0] == pytest.approx(4.5 / 6)
    assert found.auroc[1] == pytest.approx(2.5 / 4)
    assert found.n_active.tolist() == [2, 2, 0]


def test_order_and_not_size_counts():
    found = compared(([0.1, 0.2, 0.3, 9000], [0]), ([-4, -3, -2, -1], [-5]))
    assert found.spearman[0] == pytest.approx(1)
    assert found.auroc[0] == 1


def test_zero_has_no_sign():
    found = compared(([0.0, -0.0, 1], []), ([-0.0, 0.0, 2], []))
    assert found.spearman[0] == pytest.approx(1)
    tied = compared(([1, 0, 0], []), ([-0.0, 0.0, -0.0], []))
    assert tied.auroc[0] == 0.5


@pytest.mark.parametrize(
    ("real", "predicted"),
    [(([1, 1, 1], []), ([1, 2, 3], [])), (([1, 0, 1], []), ([2, 2, 2], [])), (([], []), ([], []))],
)
def test_without_variance_or_tokens_there_is_no_rank_correlation(real, predicted):
    assert np.isnan(compared(real, predicted).spearman).all()


def test_without_active_or_without_silent_tokens_there_is_no_auroc():
    for level in (0, 1):
        found = compared(([level] * 3, []), ([1, 2, 3], []))
        assert np.isnan(found.auroc).all()
        assert found.n_active[0] == 3 * level
