"""docs/scores.md on sharing out samples, and on numbers over all neurons, in plain Python."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

NAN = float("nan")

Row = dict[str, Any]


def h(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def claim(text: str) -> str:
    """The name of an explanation in `stratum_sizes`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw(sample_ids: Sequence[int], count: int) -> list[int]:
    """The random samples, with a seed of 0."""
    return sorted(sample_ids, key=lambda one: h(f"0:{one}"))[:count]


def control(key: tuple[int, int], explained: Sequence[Row]) -> tuple[int, int] | None:
    """The neuron whose explanation is this one's control. explained: rows of `explanations`."""

    def text(row: Row) -> str:
        return row["text"].split(" (r = ")[0].strip()

    ordered = sorted(explained, key=lambda row: (row["layer"], row["neuron"]))
    (mine,) = (row for row in ordered if (row["layer"], row["neuron"]) == key)
    pools = (
        [row for row in ordered if (row["layer"], row["type"]) == (mine["layer"], mine["type"])],
        [row for row in ordered if row["type"] == mine["type"]],
        ordered,
    )
    for pool in pools:
        start = int.from_bytes(h(f"0:{key[0]}:{key[1]}"), "big") % len(pool)
        for row in [*pool[start:], *pool[:start]]:
            if text(row) != text(mine):
                return row["layer"], row["neuron"]
    return None


def share_out(exemplars: Sequence[int], random: Sequence[int], images: dict[int, set[str]]) -> dict:
    """The purpose of each sample."""
    everyone = [*exemplars, *random]
    group = {one: {one} for one in everyone}
    for one in everyone:
        for other in everyone:
            if images[one] & images[other] and group[one] is not group[other]:
                joined = group[one] | group[other]
                for member in joined:
                    group[member] = joined
    purpose: dict[int, str] = {}
    deals = (
        (exemplars, ("explainer", "scorer", "explainer", "calibration")),
        (random, ("scorer", "explainer", "scorer", "calibration")),
    )
    for sample_ids, turns in deals:
        turn = 0
        for one in sample_ids:
            if one not in purpose:
                for member in group[one]:
                    purpose[member] = turns[turn % 4]
                turn += 1
    return purpose


def evenly(ids: Sequence[int], n: int) -> list[int]:
    """The n of m samples that are used."""
    return [ids[(2 * i + 1) * len(ids) // (2 * n)] for i in range(n)]


def p_contests(rows: Sequence[Row]) -> list[float]:
    """p of each row of one explainer, simulator and kind of tokens. NaN where undefined."""
    results = []
    for row in rows:
        known = {
            name: row[name] for name in row if row[name] is not None and row[name] == row[name]
        }
        if "correlation" not in known or "control_other" not in known:
            results.append(NAN)
            continue
        floor = max(known.get("control_empty", 0.0), known.get("control_blind", 0.0), 0.0)
        own, other = known["correlation"], known["control_other"]
        results.append(max(own, floor) - max(other, floor))
    contests = [w for w in results if w == w]
    return [
        NAN
        if w != w
        else min(1.0, (1 + sum(lost <= -w for lost in contests)) / len(contests))
        if w > 0
        else 1.0
        for w in results
    ]


def q_values(p: Sequence[float]) -> list[float]:
    order = sorted((place for place in range(len(p)) if p[place] == p[place]), key=lambda i: p[i])
    q, least = [NAN] * len(p), 1.0
    for j in range(len(order), 0, -1):
        least = min(least, p[order[j - 1]] * len(order) / j)
        q[order[j - 1]] = round(least, 12)
    return q


def mean_interval(values: Sequence[float], seed: int, resamples: int) -> tuple[float, float]:
    """Bounds of the mean of the values that are defined (not NaN)."""
    rng = np.random.default_rng([seed, len(values)])
    means = []
    for _ in range(resamples):
        drawn = [values[i] for i in rng.integers(len(values), size=len(values))]
        defined = [value for value in drawn if value == value]
        if defined:
            means.append(math.fsum(defined) / len(defined))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
