"""docs/scores.md on strata, weights and correlations, in plain Python: written from the page.

NumPy only draws the random numbers that the page names, counts sign patterns and takes percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROLES = ("visual", "text")
STRATA = ("exemplars", "near_misses", "rest")
NAN = float("nan")

Row = dict[str, Any]


@dataclass
class Sample:
    """A sample with real activations and each claim's predictions, by role.

    kind: `exemplar`, `random` or `near_miss`. stratum and weight: set by `weigh`.
    """

    sample_id: int
    kind: str
    real: dict[str, list[float]]
    predicted: dict[str, dict[str, list[float] | None]]
    rating: dict[str, float | None]
    is_predicted: bool = False
    stratum: str = ""
    weight: float = 1.0

    @property
    def exemplar(self) -> bool:
        return self.kind == "exemplar"

    def x(self, tokens: str) -> list[float]:
        return [value for role in roles_of(tokens) for value in self.real[role]]

    def y(self, claim: str, tokens: str) -> list[float]:
        return [value for role in roles_of(tokens) for value in self.predicted[claim][role] or []]

    def strength(self, claim: str, tokens: str, rated: bool) -> float | None:
        if tokens == "all" and rated:
            return self.rating[claim]
        return max(self.y(claim, tokens), default=None)


def roles_of(tokens: str) -> tuple[str, ...]:
    return ROLES if tokens == "all" else (tokens,)


def weigh(samples: Sequence[Sample], sizes: Row) -> None:
    """Set whether each scored sample is predicted, its stratum and its weight. sizes: the row of
    `stratum_sizes`."""
    for one in samples:
        one.is_predicted = one.kind == "near_miss" or one.sample_id in sizes["predicted_ids"]
        is_near = one.is_predicted and sizes["near_misses"] > 0
        one.stratum = "exemplars" if one.exemplar else "near_misses" if is_near else "rest"
    size = {name: sizes[name] for name in STRATA}
    scored = [one.stratum for one in samples]
    if size["near_misses"] and not {"near_misses", "rest"} <= set(scored):
        size["rest"] += size["near_misses"]
        for one in samples:
            one.stratum = "exemplars" if one.exemplar else "rest"
        scored = [one.stratum for one in samples]
    for one in samples:
        one.weight = size[one.stratum] / scored.count(one.stratum)


def pearson(
    x: Sequence[float], y: Sequence[float], weights: Sequence[float] | None = None
) -> float:
    w = [1.0] * len(x) if weights is None else weights
    if not x or is_constant(x, w) or is_constant(y, w):
        return NAN
    mean_x, mean_y = mean(x, w), mean(y, w)
    xy = math.fsum(v * (a - mean_x) * (b - mean_y) for v, a, b in zip(w, x, y, strict=True))
    xx = math.fsum(v * (a - mean_x) ** 2 for v, a in zip(w, x, strict=True))
    yy = math.fsum(v * (b - mean_y) ** 2 for v, b in zip(w, y, strict=True))
    return xy / math.sqrt(xx * yy)


def mean(x: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(w * a for w, a in zip(weights, x, strict=True)) / math.fsum(weights)


def is_constant(x: Sequence[float], weights: Sequence[float] | None = None) -> bool:
    w = [1.0] * len(x) if weights is None else weights
    squares = math.fsum(w) * math.fsum(v * a * a for v, a in zip(w, x, strict=True))
    total = math.fsum(v * a for v, a in zip(w, x, strict=True))
    return squares - total**2 <= 1e-9 * squares


def correlations(samples: Sequence[Sample], tokens: str, claims: Sequence[str]) -> list[float]:
    x = [a for one in samples for a in one.x(tokens)]
    w = [one.weight for one in samples for _ in one.x(tokens)]
    return [pearson(x, [b for one in samples for b in one.y(claim, tokens)], w) for claim in claims]


def margin(own: float, controls: Sequence[float]) -> float:
    return own - max([r for r in controls if r == r] + [0.0])


def intervals(
    samples: Sequence[Sample], tokens: str, claims: Sequence[str], seed: int, resamples: int
) -> dict[str, float]:
    """The bootstrap, by sums over each sample's tokens, as floats are slow to add one by one."""
    strata = [[one for one in samples if one.stratum == name] for name in STRATA]
    strata = [members for members in strata if members]
    ordered = [one for members in strata for one in members]
    times = []
    for number, members in enumerate(strata):
        n = len(members)
        rng = np.random.default_rng([seed + number, n])
        times.append(rng.multinomial(n, [1 / n] * n, size=resamples))
    weights = np.concatenate(times, axis=1) * np.array([one.weight for one in ordered])

    def drawn(values: list[list[float]]) -> np.ndarray:
        return weights @ np.array([math.fsum(of_sample) for of_sample in values])

    xs = [one.x(tokens) for one in ordered]
    count, x = drawn([[1.0] * len(a) for a in xs]), drawn(xs)
    xx = drawn([[v * v for v in a] for a in xs])
    r = []
    for claim in claims:
        ys = [one.y(claim, tokens) for one in ordered]
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


def p_paired(
    samples: Sequence[Sample], tokens: str, claims: Sequence[str], against_zero: bool = True
) -> float:
    x = [a for one in samples for a in one.x(tokens)]
    w = [one.weight for one in samples for _ in one.x(tokens)]
    dealt = [one for kind in (True, False) for one in samples if one.exemplar == kind]

    def standard(values: Sequence[float]) -> tuple[float, float]:
        middle = mean(values, w)
        return middle, math.sqrt(mean([(v - middle) ** 2 for v in values], w))

    def parts(claim: str) -> tuple[float, list[float]]:
        y = [b for one in samples for b in one.y(claim, tokens)]
        r = pearson(x, y, w)
        if r != r:
            return r, []
        (mean_x, sd_x), (mean_y, sd_y) = standard(x), standard(y)
        return r, [
            one.weight
            * math.fsum(
                (a - mean_x) / sd_x * (b - mean_y) / sd_y
                for a, b in zip(one.x(tokens), one.y(claim, tokens), strict=True)
            )
            for one in dealt
        ]

    own, mine = parts("own")
    if own != own:
        return NAN
    nothing = [(0.0, [0.0] * len(dealt))] if against_zero else []
    rivals = [*nothing, *(parts(claim) for claim in claims[1:])]
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
