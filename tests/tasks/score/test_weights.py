"""Weights of samples: their strata add up to the dataset, whatever was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.align import Aligned
from neuron_atlas.tasks.score.weights import EXEMPLAR, NEAR_MISS, REST, weigh

NONE = np.empty(0, np.float32)


def aligned(*drawn: str) -> Aligned:
    """Samples 0, 1, ... of each explanation, drawn as exemplars (e), at random (r) or near (n)."""
    kinds = np.array([kind for one in drawn for kind in one])
    group = np.repeat(np.arange(len(drawn)), [len(one) for one in drawn])
    ids = [place for one in drawn for place in range(len(one))]
    return Aligned(
        group,
        kinds == "e",
        kinds == "n",
        [ActivationRecord(one, NONE, NONE) for one in ids],
        NONE,
        NONE,
        (np.zeros(len(ids) + 1, np.int64), np.zeros(len(ids) + 1, np.int64)),
        {},
        np.zeros((2, len(ids)), dtype=bool),
        (NONE, NONE),
    )


def test_a_sample_stands_for_its_stratum_over_the_scored_samples():
    found = weigh(aligned("eerrnnn"), [Strata((50, 30, 920), 80, frozenset([0]))])
    assert found.weight.tolist() == [25, 25, 460, 460, 10, 10, 10]
    assert found.weight.sum() == pytest.approx(1000)
    assert found.counts.tolist() == [[2, 3, 2]]
    assert found.is_predicted.tolist() == [True, False, False, False, True, True, True]


def test_a_random_sample_that_is_predicted_is_one_of_the_near_misses():
    found = weigh(aligned("eerrn"), [Strata((50, 30, 920), 80, frozenset([2]))])
    assert found.stratum.tolist() == [EXEMPLAR, EXEMPLAR, NEAR_MISS, REST, NEAR_MISS]
    assert found.weight.tolist() == [25, 25, 15, 920, 15]


@pytest.mark.parametrize(
    ("drawn", "predicted", "weight"),
    [("eerr", [], 475), ("eerr", [2, 3], 475), ("eerrnn", [2, 3], 237.5)],
)
def test_a_stratum_without_a_scored_sample_is_represented_by_the_other(drawn, predicted, weight):
    found = weigh(aligned(drawn), [Strata((50, 30, 920), 80, frozenset(predicted))])
    assert found.weight[2:].tolist() == [weight] * (len(drawn) - 2)
    assert found.weight.sum() == pytest.approx(1000)


def test_without_near_misses_there_are_two_strata():
    found = weigh(aligned("eerr"), [Strata((50, 0, 950), 80, frozenset([0, 2]))])
    assert found.weight.tolist() == [25, 25, 475, 475]
    assert found.is_predicted.tolist() == [True, False, True, False]


def test_explanations_are_weighed_apart_and_without_strata_all_samples_weigh_the_same():
    found = weigh(aligned("er", "ern"), [None, Strata((50, 30, 920), 80, frozenset())])
    assert found.weight.tolist() == [1, 1, 50, 920, 30]
    assert found.counts.tolist() == [[1, 0, 1], [1, 1, 1]]
