"""docs/scores.md in plain Python, and nothing else: written from the page, without the program.

NumPy only rounds to float16 here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tests.workflows.correlations_from_docs import (
    NAN,
    Row,
    Sample,
    correlations,
    intervals,
    is_constant,
    margin,
    p_paired,
    pearson,
    roles_of,
    weigh,
)

CONTROLS = ("other", "empty", "blind")
LEVELS = ("broader", "narrower")
THRESHOLDS = {"visual": 2.0, "text": 3.0}


def ranks(x: Sequence[float]) -> list[float]:
    places = defaultdict(list)
    for place, value in enumerate(sorted(x), start=1):
        places[value].append(place)
    return [sum(places[value]) / len(places[value]) for value in x]


def pairs_won(positive: Sequence[float], negative: Sequence[float]) -> float:
    if not positive or not negative:
        return NAN
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return won / (len(positive) * len(negative))


def fit(x: Sequence[float], y: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """The weighted least-squares fit x = a + b y."""
    total = math.fsum(weights)
    mean_x = math.fsum(w * a for w, a in zip(weights, x, strict=True)) / total
    mean_y = math.fsum(w * b for w, b in zip(weights, y, strict=True)) / total
    variance = math.fsum(w * (b - mean_y) ** 2 for w, b in zip(weights, y, strict=True)) / total
    if variance <= 1e-12:
        return mean_x, 0.0
    covariance = math.fsum(
        w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True)
    )
    b = covariance / total / variance
    return mean_x - b * mean_y, b


def predict_blindly(shown: Sequence[Sample], scored: Sequence[Sample], tokens: dict) -> None:
    """Add the blind control's predictions to `scored`. tokens: of the text of each sample."""
    kinds = [sum(one.exemplar == kind for one in shown) for kind in (False, True)]
    weight = [1 / kinds[one.exemplar] for one in shown]

    def words(one: Sample) -> list[str]:
        seen = tokens[one.sample_id][: len(one.real["text"])]
        return [token.strip().casefold() for token in seen]

    count: dict[str, int] = defaultdict(int)
    for one in shown:
        for word in words(one):
            count[word] += 1
    pooled = [
        (x, math.log(1 + count[word]), w)
        for one, w in zip(shown, weight, strict=True)
        for x, word in zip(one.real["text"], words(one), strict=True)
    ]
    a, b = fit(*zip(*pooled, strict=True)) if pooled else (0.0, 0.0)
    for one in scored:
        n = len(one.real["visual"])
        same = [(s, w) for s, w in zip(shown, weight, strict=True) if len(s.real["visual"]) == n]
        if same and n:
            whole = sum(w for _, w in same)
            visual = [sum(w * s.real["visual"][i] for s, w in same) / whole for i in range(n)]
        else:
            every = [(x, w) for s, w in zip(shown, weight, strict=True) for x in s.real["visual"]]
            visual = [sum(x * w for x, w in every) / sum(w for _, w in every)] * n if every else []
            visual = visual or [0.0] * n
        text = [a + b * math.log(1 + count[word]) for word in words(one)]
        one.predicted["blind"] = {"visual": visual, "text": text}


def strengths_of(samples: Sequence[Sample], claim: str, tokens: str) -> list[tuple[float, bool]]:
    rated = all(one.rating.get(claim) is not None for one in samples)
    found = [(one.strength(claim, tokens, rated), one.exemplar) for one in samples]
    return [(value, kind) for value, kind in found if value is not None]


def detection(strengths: Sequence[tuple[float, bool]]) -> float:
    sides = [[value for value, kind in strengths if kind == which] for which in (True, False)]
    return pairs_won(*sides)


def balanced_accuracy(strengths: Sequence[tuple[float, bool]], threshold: float) -> float:
    sides = [[value > threshold for value, kind in strengths if kind == which] for which in (1, 0)]
    if not all(sides):
        return NAN
    return (sum(sides[0]) / len(sides[0]) + 1 - sum(sides[1]) / len(sides[1])) / 2


def find_threshold(strengths: Sequence[tuple[float, bool]]) -> float:
    if len({kind for _, kind in strengths}) < 2:
        return NAN
    distinct = sorted({value for value, _ in strengths})
    if len(distinct) == 1:
        return distinct[0]
    middles = [(a + b) / 2 for a, b in pairwise(distinct)]
    return max(middles, key=lambda middle: (balanced_accuracy(strengths, middle), -middle))


def is_active(x: float, role: str, scale: float) -> bool:
    return scale > 0 and x > THRESHOLDS[role] * scale / 10


def is_positive(one: Sample, tokens: str, scale: float) -> bool:
    return any(is_active(x, role, scale) for role in roles_of(tokens) for x in one.real[role])


def purity(samples: Sequence[Sample], tokens: str, scale: float) -> float:
    """Average precision of the samples by strength, those of equal strength together."""
    rated = all(one.rating["own"] is not None for one in samples)
    ranked = [
        (strength, one.weight, is_positive(one, tokens, scale))
        for one in samples
        if (strength := one.strength("own", tokens, rated)) is not None
    ]
    positives = math.fsum(w for _, w, positive in ranked if positive)
    if not positives:
        return NAN
    total, found_before = 0.0, 0.0
    for threshold in sorted({strength for strength, *_ in ranked}, reverse=True):
        above = [(w, positive) for strength, w, positive in ranked if strength >= threshold]
        found = math.fsum(w for w, positive in above if positive)
        total += (found - found_before) * found / math.fsum(w for w, _ in above)
        found_before = found
    return total / positives


def random_purity(samples: Sequence[Sample], tokens: str, scale: float) -> float:
    rated = all(one.rating["own"] is not None for one in samples)
    counted = [one for one in samples if one.strength("own", tokens, rated) is not None]
    positives = math.fsum(one.weight for one in counted if is_positive(one, tokens, scale))
    return positives / math.fsum(one.weight for one in counted) if positives else NAN


def recall(samples: Sequence[Sample], scale: float, sizes: Row) -> float:
    positives = [one for one in samples if is_positive(one, "all", scale)]
    if not positives or not sizes["predicted"]:
        return NAN
    found = math.fsum(one.weight for one in positives if one.is_predicted)
    return found / math.fsum(one.weight for one in positives)


def compare_levels(
    scored: Sequence[Sample], levels: Sequence[str], tokens: str
) -> dict[str, float]:
    """The columns of the broader and the narrower claim. scored: with their weights."""
    found = {f"{column}_{level}": NAN for level in LEVELS for column in ("control", "p")}
    for level in levels:
        _, r = correlations(scored, tokens, ["own", level])
        if r == r:
            p = p_paired(scored, tokens, ["own", level], against_zero=False)
            found |= {f"control_{level}": r, f"p_{level}": p}
    return found


def score(
    scored: Sequence[Sample],
    calibration: Sequence[Sample],
    claims: Sequence[str],
    scale: float,
    sizes: Row,
    tokens: str,
    settings: Any,
) -> dict[str, float]:
    """The columns of one row of `scores` that need no other neuron. sizes: of `stratum_sizes`."""
    weigh(scored, sizes)
    own, *controls = correlations(scored, tokens, claims)
    found = {"correlation": own, "margin": margin(own, controls)}
    found |= {f"control_{claim}": NAN for claim in CONTROLS}
    found |= {f"control_{claim}": r for claim, r in zip(claims[1:], controls, strict=True)}
    found |= intervals(scored, tokens, claims, settings.seed, settings.resamples)
    found["p_paired"] = p_paired(scored, tokens, claims)
    found["purity"] = purity(scored, tokens, scale)
    found["random_purity"] = random_purity(scored, tokens, scale)
    found["recall"] = recall(scored, scale, sizes) if tokens == "all" else NAN
    found["n_samples"], found["n_tokens"] = len(scored), sum(len(one.x(tokens)) for one in scored)
    found["n_near_misses"] = sum(one.kind == "near_miss" for one in scored)
    # The other columns are over exemplars and random samples, without weights.
    scored = [one for one in scored if one.kind != "near_miss"]
    x = [a for one in scored for a in one.x(tokens)]
    y = [b for one in scored for b in one.y("own", tokens)]
    found["top_random_correlation"] = pearson(x, y)
    found["spearman"] = pearson(ranks([float(np.float16(a)) for a in x]), ranks(y))
    active = [
        is_active(a, role, scale)
        for one in scored
        for role in roles_of(tokens)
        for a in one.real[role]
    ]
    found["n_active"] = sum(active)
    found["auroc"] = pairs_won(
        [b for b, fires in zip(y, active, strict=True) if fires],
        [b for b, fires in zip(y, active, strict=True) if not fires],
    )
    fit_x = [a for one in calibration for a in one.x(tokens)]
    fit_y = [b for one in calibration for b in one.y("own", tokens)]
    found["explained_variance"] = found["explained_variance_uncentered"] = NAN
    if fit_y and not is_constant(fit_y) and not is_constant(x):
        a, b = fit(fit_x, fit_y, [1.0] * len(fit_x))
        if b < 0:
            a, b = math.fsum(fit_x) / len(fit_x), 0.0
        missed = math.fsum((u - a - b * v) ** 2 for u, v in zip(x, y, strict=True))
        mean = math.fsum(x) / len(x)
        found["explained_variance"] = 1 - missed / math.fsum((u - mean) ** 2 for u in x)
        found["explained_variance_uncentered"] = 1 - missed / math.fsum(u * u for u in x)
    strengths, fitted = (
        strengths_of(scored, "own", tokens),
        strengths_of(calibration, "own", tokens),
    )
    found["detection_auroc"] = detection(strengths)
    found["detection_auroc_other"] = NAN
    if "other" in claims:
        found["detection_auroc_other"] = detection(strengths_of(scored, "other", tokens))
    threshold = find_threshold(fitted)
    found["balanced_accuracy"] = (
        NAN if threshold != threshold else balanced_accuracy(strengths, threshold)
    )
    return found
