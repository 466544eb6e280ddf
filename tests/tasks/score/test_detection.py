import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from neuron_atlas.tasks.score.detection import balanced_accuracy, detection_auroc, find_threshold


def one(strength, exemplar) -> tuple[np.ndarray, np.ndarray]:
    return np.array([strength], float), np.array([exemplar], bool)


def test_auc_is_the_share_of_pairs_in_which_the_exemplar_is_stronger():
    # Exemplars 3 and 1 against 1 and 0: won, won, drawn, won.
    assert detection_auroc(*one([3, 1, 1, 0], [1, 1, 0, 0])).tolist() == [3.5 / 4]


def test_auc_is_mann_whitneys_for_many_neurons_at_once():
    rng = np.random.default_rng(0)
    strength = rng.integers(0, 6, size=(30, 14)).astype(float)
    exemplar = rng.permuted(np.tile([True] * 8 + [False] * 6, (30, 1)), axis=1)
    expected = [
        mannwhitneyu(row[mark], row[~mark]).statistic / 48
        for row, mark in zip(strength, exemplar, strict=True)
    ]
    assert detection_auroc(strength, exemplar) == pytest.approx(expected)


def test_the_threshold_lies_half_way_where_the_calibration_samples_part():
    assert find_threshold(*one([0, 1, 4, 6], [0, 0, 1, 1])).tolist() == [2.5]
    # 1 | 2 and 3 | 4 tell them apart equally well, with one mistake each: the lower one is taken.
    assert find_threshold(*one([1, 2, 3, 4], [0, 1, 0, 1])).tolist() == [1.5]


def test_balanced_accuracy_weighs_both_kinds_alike_however_many_there_are():
    strength, exemplar = one([5, 0, 0, 0, 0, 9], [1, 1, 0, 0, 0, 0])
    # Of two exemplars one is found, of four others three are left alone.
    assert balanced_accuracy(strength, exemplar, np.array([2.0])).tolist() == [(1 / 2 + 3 / 4) / 2]


def test_the_threshold_is_not_of_the_scored_samples():
    """A simulator whose level shifts between the two sets of samples is not helped."""
    threshold = find_threshold(*one([0, 1, 4, 5], [0, 0, 1, 1]))
    strength, exemplar = one([10, 11, 14, 15], [0, 0, 1, 1])
    assert detection_auroc(strength, exemplar) == 1
    assert balanced_accuracy(strength, exemplar, threshold) == 0.5


def test_who_says_the_same_of_all_is_at_chance():
    strength, exemplar = one([1, 1, 1, 1], [1, 1, 0, 0])
    assert detection_auroc(strength, exemplar) == 0.5
    assert balanced_accuracy(strength, exemplar, find_threshold(strength, exemplar)) == 0.5


@pytest.mark.parametrize(
    ("strength", "exemplar"),
    [([1, 2], [1, 1]), ([1, 2], [0, 0]), ([1, np.nan], [1, 0]), ([], [])],
)
def test_without_both_kinds_or_a_strength_it_is_undefined(strength, exemplar):
    given = one(strength, exemplar)
    assert np.isnan(detection_auroc(*given)).all()
    assert np.isnan(find_threshold(*given)).all()
    assert np.isnan(balanced_accuracy(*given, np.array([1.0]))).all()


def test_samples_without_a_strength_do_not_count():
    without = one([np.nan, 3, 5, np.nan, 1, 4], [1, 1, 1, 0, 0, 0])
    counting = one([3, 5, 1, 4], [1, 1, 0, 0])
    assert detection_auroc(*without) == detection_auroc(*counting) == 3 / 4
    assert find_threshold(*without) == find_threshold(*counting) == 2
    threshold = np.array([2.0])
    assert (
        balanced_accuracy(*without, threshold) == balanced_accuracy(*counting, threshold) == 3 / 4
    )
