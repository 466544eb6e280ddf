import numpy as np
import pytest

from neuron_atlas.tasks.analyse.peaks import concentration, peaks_of
from tests.tasks.exemplars import exemplar_table


def of(*rows: list[float]) -> list[float]:
    sums = [(np.clip(row, 0, None).sum(), np.square(np.clip(row, 0, None)).sum()) for row in rows]
    total, squares = np.array(sums).T
    return concentration(total, squares, np.array([len(row) for row in rows])).tolist()


def test_an_even_image_is_not_concentrated_and_a_single_token_is():
    assert of([2.0] * 9, [0, 0, 5.0, 0], [-3.0, 0.5, -2.0]) == pytest.approx([0, 1, 1])


def test_half_of_the_tokens_alike_lie_between():
    # Even over k of n tokens: (1 - k / n) / (1 - 1 / n).
    assert of([1.0] * 5 + [0.0] * 5) == pytest.approx([0.5 / 0.9])
    assert of([7.0, 0, 0, 7.0, -9.0]) == pytest.approx([0.6 / 0.8])


def test_the_scale_of_the_activations_does_not_matter():
    row = np.random.default_rng(1).exponential(1, 30)
    assert of(list(row)) == pytest.approx(of(list(100 * row)))


def test_where_nothing_is_excited_or_there_is_no_image_concentration_is_unknown():
    assert np.isnan(of([], [0.0, -1.0], [3.0])).all()
    assert of([1.0, 0.0], [], [1.0, 1.0])[::2] == pytest.approx([1, 0])


def test_peaks_are_found_in_every_filled_slot():
    table = exemplar_table(
        {
            0: [(5, [1, 3, 2], [0.5]), (2, [], [1, 4, 4, 0])],
            3: [(9, [-2, -1], [])],
            4: [(1, [7], [-3, -2, -5])],
            6: [],
        },
        layer=0,
        top_activations=2,
    )
    peaks = peaks_of(table)
    assert peaks.row.tolist() == [0, 0, 1, 2]
    assert peaks.sample_id.tolist() == [5, 2, 9, 1]
    assert peaks.visual.tolist() == [3, -np.inf, -1, 7]
    assert peaks.text.tolist() == [0.5, 4, -np.inf, -2]
    assert peaks.text_token.tolist() == [0, 1, -1, 1]
    assert peaks.visual_sum.tolist() == [6, 0, 0, 7]
    assert peaks.visual_sum_sq.tolist() == [14, 0, 0, 49]


def test_a_layer_without_exemplars_has_no_peaks():
    assert len(peaks_of(exemplar_table({0: [], 1: []}, layer=0)).row) == 0
