"""Effects of groups against random sets, with intervals over samples; double dissociation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.statistics.sign_flips import two_sided_p

_BLOCKS = 16
_LEVEL = 0.95


@dataclass(frozen=True)
class Measured:
    """A measure of many conditions: a ratio of sums over samples.

    above, below: float64 [conditions, samples], numerator and denominator; row 0 is the intact
    subject. NaN in a row where the subject's output overflows.
    """

    above: np.ndarray
    below: np.ndarray

    def select(self, samples: np.ndarray) -> Measured:
        """Return the measure over some samples. samples: indices or bool."""
        return Measured(self.above[:, samples], self.below[:, samples])

    def values(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the measure of each condition: float64 [conditions], or [conditions, draws] with
        weights [samples, draws]; NaN without a denominator."""
        above, below = (
            (self.above.sum(1), self.below.sum(1))
            if weights is None
            else (self.above @ weights, self.below @ weights)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(below > 0, above / below, np.nan)


@dataclass(frozen=True)
class Effect:
    """The effect of a group on a measure; see `group_effects`."""

    intact: float
    changed: float
    effect: float
    ci_low: float
    ci_high: float
    random_mean: float
    band_low: float
    band_high: float
    band_level: float
    n_random: int
    p_random: float


@dataclass(frozen=True)
class Contrast:
    """The interaction of two groups and two measures; see `dissociations`."""

    own: float
    own_on_other: float
    other_on_own: float
    other_own: float
    contrast: float
    ci_low: float
    ci_high: float
    p: float
    p_random: float
    own_low: float
    other_low: float


def draw_samples(count: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each sample is drawn: float64 [count, resamples]. All measures and
    conditions use the same draws, so their differences are paired."""
    rng = np.random.default_rng([seed, count])
    return rng.multinomial(count, np.full(count, 1 / max(1, count)), size=resamples).T.astype(float)


def group_effect(
    measured: Measured, target: int, random: Sequence[int], weights: np.ndarray
) -> Effect:
    """Return the effect of condition `target` against those of `random` sets.

    The band goes from the lowest to the highest effect of the random sets. If the group were itself
    such a set, it would fall outside with a chance of 2 / (sets + 1), whatever the distribution.
    """
    values = measured.values()
    effects = values - values[0]
    others = effects[list(random)]
    others = others[np.isfinite(others)]
    drawn = measured.values(weights)
    low, high = _bounds(drawn[target] - drawn[0])
    count = len(others)
    return Effect(
        intact=values[0],
        changed=values[target],
        effect=effects[target],
        ci_low=low,
        ci_high=high,
        random_mean=others.mean() if count else np.nan,
        band_low=others.min() if count else np.nan,
        band_high=others.max() if count else np.nan,
        band_level=1 - 2 / (count + 1),
        n_random=count,
        p_random=rank_p(effects[target], others),
    )


def contrast_groups(
    own: Measured,
    other: Measured,
    targets: tuple[int, int],
    random: tuple[Sequence[int], Sequence[int]],
    weights: np.ndarray,
) -> Contrast:
    """Return the contrast of two groups and two measures over the same samples.

    own, other: the first and the second group's measure, with equal denominators in all conditions
    (teacher-forced losses). targets: conditions of the two groups. random: conditions of their
    random sets. The contrast is (own - own_on_other) - (other_on_own - other_own). Its p-value
    flips the signs of 16 blocks of samples. p_random is the chance of as high a contrast among the
    random sets; it is one-sided, since only a contrast above 0 is a dissociation.
    """
    first, second = targets
    on_own, on_other = (one.values() - one.values()[0] for one in (own, other))

    def contrast(a: int, b: int) -> float:
        return (on_own[a] - on_other[a]) - (on_own[b] - on_other[b])

    drawn_own, drawn_other = own.values(weights), other.values(weights)
    more_own = drawn_own[first] - drawn_own[second]
    more_other = drawn_other[second] - drawn_other[first]
    low, high = _bounds(more_own + more_other)
    found = contrast(first, second)
    others = np.array([contrast(a, b) for a, b in zip(*random, strict=False)])
    return Contrast(
        own=on_own[first],
        own_on_other=on_other[first],
        other_on_own=on_own[second],
        other_own=on_other[second],
        contrast=found,
        ci_low=low,
        ci_high=high,
        p=_paired_p(own, other, first, second),
        p_random=upper_rank_p(found, others[np.isfinite(others)]),
        own_low=_bounds(more_own)[0],
        other_low=_bounds(more_other)[0],
    )


def verdict(found: Contrast, is_broken: bool, level: float) -> str:
    """Return one of VERDICTS.

    Both p-values must be at most `level`, and for `double` each group must matter more than the
    other one for its own measure, with the bound of its interval above 0.
    """
    if not np.isfinite(found.contrast) or not np.isfinite(found.p):
        return "undefined"
    if is_broken:
        return "broken"
    if found.contrast <= 0 or max(found.p, found.p_random) > level:
        return "none"
    return "double" if min(found.own_low, found.other_low) > 0 else "single"


def perplexity_ratio(losses: Measured, condition: int) -> float:
    """Return the perplexity of a condition over that of the intact subject."""
    values = losses.values()
    with np.errstate(over="ignore"):
        return float(np.exp(values[condition] - values[0]))


def choose_alpha(
    scores: Mapping[float, float], ratios: Mapping[float, float], max_ratio: float
) -> float | None:
    """Return the factor with the highest score among those that leave the subject's language
    intact; None without any. Of equal scores, the one nearest to 1."""
    usable = [
        alpha
        for alpha, score in scores.items()
        if np.isfinite(score) and ratios[alpha] <= max_ratio
    ]
    if not usable:
        return None
    return max(usable, key=lambda alpha: (scores[alpha], -abs(alpha - 1), -alpha))


def _paired_p(own: Measured, other: Measured, first: int, second: int) -> float:
    """Return the two-sided p-value of the contrast, by sign flips of blocks of samples.

    The contrast is a sum over samples, of differences of summed losses over the total number of
    tokens. If neither group matters more, a block's part is as likely to be negative.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = (own.above[first] - own.above[second]) / own.below[0].sum() - (
            other.above[first] - other.above[second]
        ) / other.below[0].sum()
    if not np.isfinite(parts).all():
        return np.nan
    blocks = np.bincount(np.arange(len(parts)) % _BLOCKS, weights=parts, minlength=_BLOCKS)
    return float(two_sided_p(blocks[None, : min(_BLOCKS, len(parts))])[0])


def rank_p(value: float, others: np.ndarray) -> float:
    """Return the two-sided rank p-value of a value among exchangeable others; NaN without any."""
    return min(1.0, 2 * min(upper_rank_p(value, others), upper_rank_p(-value, -others)))


def upper_rank_p(value: float, others: np.ndarray) -> float:
    """Return the chance of a value as high among exchangeable others; NaN without any."""
    if not np.isfinite(value) or not len(others):
        return np.nan
    return float((1 + (others >= value).sum()) / (len(others) + 1))


def _bounds(draws: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of the defined draws; NaN without any."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return np.nan, np.nan
    low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
