"""docs/scores.md in plain Python, and nothing else: written from the page, without the program.

NumPy only draws the random numbers that the page names, counts sign patterns and takes percentiles.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

CONTROLS = ("other", "empty", "blind")
ROLES = ("visual", "text")
NAN = float("nan")
MIN_SAMPLES, MIN_TOKENS = 4, 10
THRESHOLDS = {"visual": 2.0, "text": 3.0}

Row = dict[str, Any]


@dataclass
class Sample:
    """A sample with real activations and each claim's predictions, by role."""

    sample_id: int
    exemplar: bool
    real: dict[str, list[float]]
    predicted: dict[str, dict[str, list[float] | None]]
    rating: dict[str, float | None]

    def x(self, tokens: str) -> list[float]:
        roles = ROLES if tokens == "all" else (tokens,)
        return [value for role in roles for value in self.real[role]]

    def y(self, claim: str, tokens: str) -> list[float]:
        roles = ROLES if tokens == "all" else (tokens,)
        return [value for role in roles for value in self.predicted[claim][role] or []]

    def strength(self, claim: str, tokens: str, rated: bool) -> float | None:
        if tokens == "all" and rated:
            return self.rating[claim]
        return max(self.y(claim, tokens), default=None)


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    n = len(x)
    if not n or is_constant(x) or is_constant(y):
        return NAN
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    xy = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    xx = math.fsum((a - mean_x) ** 2 for a in x)
    yy = math.fsum((b - mean_y) ** 2 for b in y)
    return xy / math.sqrt(xx * yy)


def is_constant(x: Sequence[float]) -> bool:
    squares = len(x) * math.fsum(a * a for a in x)
    return squares - math.fsum(x) ** 2 <= 1e-9 * squares


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


def correlations(samples: Sequence[Sample], tokens: str, claims: Sequence[str]) -> list[float]:
    x = [a for one in samples for a in one.x(tokens)]
    return [pearson(x, [b for one in samples for b in one.y(claim, tokens)]) for claim in claims]


def margin(own: float, controls: Sequence[float]) -> float:
    return own - max([r for r in controls if r == r] + [0.0])


def intervals(
    samples: Sequence[Sample], tokens: str, claims: Sequence[str], seed: int, resamples: int
) -> dict[str, float]:
    """The bootstrap, by sums over each sample's tokens, as floats are slow to add one by one."""
    n = len(samples)
    weights = np.random.default_rng([seed, n]).multinomial(n, [1 / n] * n, size=resamples)

    def drawn(values: list[list[float]]) -> np.ndarray:
        return weights @ np.array([math.fsum(of_sample) for of_sample in values])

    xs = [one.x(tokens) for one in samples]
    count, x = drawn([[1.0] * len(a) for a in xs]), drawn(xs)
    xx = drawn([[v * v for v in a] for a in xs])
    r = []
    for claim in claims:
        ys = [one.y(claim, tokens) for one in samples]
        y, yy = drawn(ys), drawn([[v * v for v in b] for b in ys])
        xy = drawn(
            [[u * v for u, v in zip(a, b, strict=True)] for a, b in zip(xs, ys, strict=True)]
        )
        spread_x, spread_y = count * xx - x * x, count * yy - y * y
        defined = (spread_x > 1e-9 * count * xx) & (spread_y > 1e-9 * count * yy)
        with np.errstate(invalid="ignore", divide="ignore"):
            its = (count * xy - x * y) / np.sqrt(spread_x * spread_y)
        r.append(np.where(defined, its, np.nan))
    margins = [margin(own, controls) for own, *controls in zip(*r, strict=True)]
    found = {}
    for names, draws in ((("ci_low", "ci_high"), r[0]), (("margin_low", "margin_high"), margins)):
        kept = [draw for draw in draws if draw == draw]
        for name, share in zip(names, (2.5, 97.5), strict=True):
            found[name] = float(np.percentile(kept, share)) if kept else NAN
    return found


def p_paired(samples: Sequence[Sample], tokens: str, claims: Sequence[str]) -> float:
    x = [a for one in samples for a in one.x(tokens)]
    n = len(x)
    dealt = [one for kind in (True, False) for one in samples if one.exemplar == kind]

    def standard(values: Sequence[float]) -> tuple[float, float]:
        mean = math.fsum(values) / n
        return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / n)

    def parts(claim: str) -> tuple[float, list[float]]:
        y = [b for one in samples for b in one.y(claim, tokens)]
        r = pearson(x, y)
        if r != r:
            return r, []
        (mean_x, sd_x), (mean_y, sd_y) = standard(x), standard(y)
        return r, [
            math.fsum(
                (a - mean_x) / sd_x * (b - mean_y) / sd_y
                for a, b in zip(one.x(tokens), one.y(claim, tokens), strict=True)
            )
            for one in dealt
        ]

    own, mine = parts("own")
    if own != own:
        return NAN
    rivals = [(0.0, [0.0] * len(dealt)), *(parts(claim) for claim in claims[1:])]
    found = []
    for r, its in rivals:
        if r != r:
            continue
        blocks = [0.0] * 16
        for place, (added, other) in enumerate(zip(mine, its, strict=True)):
            blocks[place % 16] += added - other
        signs = 1 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1)
        needed = sum(blocks) - 1e-12 * sum(map(abs, blocks))
        reached = float((signs @ np.array(blocks) >= needed).mean())
        found.append(reached if own > r else 1.0)
    return max(found)


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


def score(
    scored: Sequence[Sample],
    calibration: Sequence[Sample],
    claims: Sequence[str],
    scale: float,
    tokens: str,
    settings: Any,
) -> dict[str, float]:
    """The columns of one row of `scores` that need no other neuron."""
    x = [a for one in scored for a in one.x(tokens)]
    y = [b for one in scored for b in one.y("own", tokens)]
    own, *controls = correlations(scored, tokens, claims)
    found = {"correlation": own, "margin": margin(own, controls)}
    found |= {f"control_{claim}": NAN for claim in CONTROLS}
    found |= {f"control_{claim}": r for claim, r in zip(claims[1:], controls, strict=True)}
    found |= intervals(scored, tokens, claims, settings.seed, settings.resamples)
    found["p_paired"] = p_paired(scored, tokens, claims)
    found["spearman"] = pearson(ranks([float(np.float16(a)) for a in x]), ranks(y))
    roles = ROLES if tokens == "all" else (tokens,)
    active = [
        a > THRESHOLDS[role] * scale / 10 if scale > 0 else False
        for one in scored
        for role in roles
        for a in one.real[role]
    ]
    found["n_active"] = sum(active)
    found["auroc"] = pairs_won(
        [b for b, is_active in zip(y, active, strict=True) if is_active],
        [b for b, is_active in zip(y, active, strict=True) if not is_active],
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
