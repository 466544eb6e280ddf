"""The random band and the p-values hold what they promise, by simulation."""

import numpy as np
import pytest

from neuron_atlas.tasks.groups.members import Members
from neuron_atlas.tasks.groups.sets import Group, matched_sets, norm_bins
from neuron_atlas.tasks.groups.statistics import (
    Measured,
    choose_alpha,
    contrast_groups,
    draw_samples,
    group_effect,
    upper_rank_p,
    verdict,
)

GROUP = Group("visual", 0.05, 0, 0)
SETS = 20


def layer(rng: np.random.Generator, count: int = 300) -> Members:
    """Neurons whose norms differ a hundredfold."""
    numbers = np.arange(count)
    norms = np.exp(rng.normal(0, 1.5, count))
    return Members(0, numbers, np.full(count, "text"), np.zeros(count), norms, np.zeros(count))


def outside(members: Members, rng: np.random.Generator, is_loud: bool) -> bool:
    """Whether a group falls outside the band of its random sets. Without a special effect each
    neuron's effect is its norm times noise, so louder neurons matter more."""
    effects = np.abs(rng.normal(size=300)) * members.norms
    among = np.argsort(members.norms)[-60:] if is_loud else np.arange(300)
    rows = np.sort(rng.choice(among, 15, replace=False))
    sets = list(matched_sets([members], GROUP, {0: rows}, SETS, int(rng.integers(2**31))))
    summed = np.array([0.0, *(effects[list(one.neurons[0])].sum() for one in sets)])
    measured = Measured(summed[:, None], np.ones((SETS + 2, 1)))
    found = group_effect(measured, 1, range(2, SETS + 2), np.ones((1, 2)))
    assert found.band_level == pytest.approx(1 - 2 / 21)
    return not found.band_low <= found.effect <= found.band_high


@pytest.mark.parametrize("is_loud", [False, True])
def test_a_random_group_falls_outside_the_band_as_often_as_the_band_says(is_loud):
    """Also a group of loud neurons, because the random sets match its norms."""
    rng = np.random.default_rng(3)
    members = layer(rng)
    rate = np.mean([outside(members, rng, is_loud) for _ in range(150)])
    promised = 2 / (SETS + 1)
    assert abs(rate - promised) < 3.3 * np.sqrt(promised * (1 - promised) / 150)


def test_random_sets_match_the_group_in_count_and_norm_and_differ_from_each_other():
    rng = np.random.default_rng(5)
    members = layer(rng)
    rows = np.argsort(members.norms)[-15:]
    target, *random = matched_sets([members], GROUP, {0: rows}, SETS, 0)
    bins = norm_bins(members.norms)
    for one in random:
        numbers = list(one.neurons[0])
        np.testing.assert_array_equal(np.sort(bins[numbers]), np.sort(bins[rows]))
        assert len(set(numbers)) == len(rows)
        assert one.overlap[0] == np.isin(numbers, rows).mean()
    assert len({one.neurons[0] for one in random}) == SETS
    assert 0.5 < np.mean([one.norm[0] for one in random]) / target.norm[0] < 2


def simulated(rng: np.random.Generator, own: float, other: float, samples: int = 32):
    """Two measures of two groups: each raises its own loss by `own` and the other's by `other`."""
    noise = rng.normal(0, 0.3, (2, 2 + 2 * SETS, samples))
    noise[:, 0] = 0
    tokens = rng.integers(5, 15, samples).astype(float)
    for measure, group in ((0, 1), (1, 2)):
        noise[measure, group] += own
        noise[measure, 3 - group] += other
    first, second = (Measured(part * tokens, np.tile(tokens, (len(part), 1))) for part in noise)
    random = range(3, 3 + SETS), range(3 + SETS, 2 + 2 * SETS)
    return first, second, (1, 2), random


def test_two_groups_that_each_matter_for_their_own_measure_are_a_double_dissociation():
    weights = draw_samples(32, 400, 0)
    found = contrast_groups(*simulated(np.random.default_rng(0), 0.8, 0.1), weights)
    assert verdict(found, False, 0.05) == "double"
    assert found.ci_low < found.contrast < found.ci_high
    assert found.contrast == pytest.approx(1.4, abs=0.3)
    assert verdict(found, True, 0.05) == "broken"


def test_effects_with_the_wrong_sign_are_no_dissociation():
    """A group whose ablation lowers the loss of its own measure."""
    weights = draw_samples(32, 400, 0)
    found = contrast_groups(*simulated(np.random.default_rng(0), -0.8, 0.1), weights)
    assert found.contrast < 0
    assert found.p < 0.01
    assert verdict(found, False, 0.05) == "none"


def test_without_an_effect_a_dissociation_is_rare_and_its_p_value_is_level():
    rng = np.random.default_rng(8)
    weights = draw_samples(32, 200, 0)
    found = [contrast_groups(*simulated(rng, 0.4, 0.4), weights) for _ in range(200)]
    assert np.mean([one.p <= 0.05 for one in found]) < 0.09
    assert np.mean([verdict(one, False, 0.05) != "none" for one in found]) < 0.05
    inside = np.mean([one.ci_low <= 0 <= one.ci_high for one in found])
    assert 0.9 < inside < 0.99


def test_a_rank_needs_others_and_counts_the_value_itself():
    assert upper_rank_p(5.0, np.arange(4.0)) == 1 / 5
    assert upper_rank_p(-1.0, np.arange(4.0)) == 1
    assert np.isnan(upper_rank_p(1.0, np.empty(0)))


def test_an_alpha_that_breaks_the_subject_is_not_chosen():
    scores = {2.0: 0.5, 4.0: 0.9, 0.5: float("nan")}
    assert choose_alpha(scores, {2.0: 1.1, 4.0: 1.2, 0.5: 1.0}, 3) == 4.0
    assert choose_alpha(scores, {2.0: 1.1, 4.0: 9.0, 0.5: 1.0}, 3) == 2.0
    assert choose_alpha(scores, {2.0: 9.0, 4.0: 9.0, 0.5: 1.0}, 3) is None
    assert choose_alpha({2.0: 0.5, 0.5: 0.5}, {2.0: 1, 0.5: 1}, 3) == 0.5
