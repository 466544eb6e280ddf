"""Compute the tables of effects: groups against random sets, dissociations, steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts.grouped import DISSOCIATIONS, GROUP_EFFECTS, STEERING_EFFECTS
from neuron_atlas.tasks.groups.measures import GUARD, SAYS, Results
from neuron_atlas.tasks.groups.sets import Group, NeuronSet
from neuron_atlas.tasks.groups.statistics import (
    choose_alpha,
    contrast_groups,
    draw_samples,
    group_effect,
    perplexity_ratio,
    verdict,
)

LEVEL = 0.05
"""Largest p-value of a dissociation."""
OWN_MEASURES = {"visual": "visual_words", "text": "text_alone"}
"""The measure for which a type should matter."""
_PAIRS = (("visual_words", "text_alone"), ("visual_words", "function_words"))
ALL, CHOOSE, REPORT = "all", "choose", "report"


def ablation_effects(
    results: Results,
    sets: Sequence[NeuronSet],
    resamples: int,
    seed: int,
    max_ratio: float,
) -> pa.Table:
    """Return rows of `group_effects` for the ablation of each group."""
    rows = [
        row
        for target in results.targets()
        for row in _effect_rows(results, target, sets, resamples, seed, max_ratio, ALL, None)
    ]
    return pa.Table.from_pylist(rows, schema=GROUP_EFFECTS.schema)


def dissociations(results: Results, resamples: int, seed: int, max_ratio: float) -> pa.Table:
    """Return rows of `dissociations`: visual against text neurons, for each share and range.

    The visual neurons' measure is the loss of visual words with the image; the text neurons' one
    the loss of text alone, or of function words with the image.
    """
    rows = []
    targets = {(results.keys[one].group): one for one in results.targets()}
    for first, second in combinations(targets, 2):
        if {first.name, second.name} != set(OWN_MEASURES) or _place(first) != _place(second):
            continue
        own, other = sorted((first, second), key=lambda group: list(OWN_MEASURES).index(group.name))
        for measure, other_measure in _PAIRS:
            if measure in results.measures and other_measure in results.measures:
                numbers = targets[own], targets[other]
                rows.append(
                    _dissociation(
                        results, numbers, (measure, other_measure), resamples, seed, max_ratio
                    )
                )
    return pa.Table.from_pylist(rows, schema=DISSOCIATIONS.schema)


def steering_effects(
    results: Results,
    sets: Sequence[NeuronSet],
    halves: Mapping[int, str],
    resamples: int,
    seed: int,
    max_ratio: float,
) -> pa.Table:
    """Return rows of `steering_effects`, by half of the samples.

    halves: half of each sample. The best factor of a group is chosen on the half `choose` alone:
    the one that makes the subject say the group's words most often, or name the most right things,
    or, without generated descriptions, that has the lowest loss of visual words; among those that
    leave its language intact. None is chosen if none is better than no change, or for a group
    without random sets, which is there for comparison.
    """
    rows: list[dict[str, Any]] = []
    by_group: dict[Group, list[int]] = {}
    for target in results.targets():
        by_group.setdefault(results.keys[target].group, []).append(target)
    for group, targets in by_group.items():
        found = [
            row
            for target in targets
            for half in (CHOOSE, REPORT)
            for row in _effect_rows(results, target, sets, resamples, seed, max_ratio, half, halves)
        ]
        has_random = any(results.random(target) for target in targets)
        best = _best_alpha(group, found, max_ratio) if has_random else None
        rows += [row | {"chosen": row["alpha"] == best} for row in found]
    return pa.Table.from_pylist(rows, schema=STEERING_EFFECTS.schema)


def _effect_rows(
    results: Results,
    target: int,
    sets: Sequence[NeuronSet],
    resamples: int,
    seed: int,
    max_ratio: float,
    half: str,
    halves: Mapping[int, str] | None,
) -> list[dict[str, Any]]:
    key = results.keys[target]
    of_group = [one for one in sets if one.group == key.group]
    ratio = np.nan
    rows = []
    for name in sorted(results.measures, key=lambda name: name != GUARD):  # The guard first.
        ids = results.sample_ids[name]
        chosen = np.array([halves is None or halves[one] == half for one in ids.tolist()], bool)
        measured = results.measures[name].select(chosen)
        if name == GUARD:
            ratio = perplexity_ratio(measured, target)
        weights = draw_samples(measured.above.shape[1], resamples, seed)
        effect = group_effect(measured, target, results.random(target), weights)
        rows.append(
            _group_columns(key.group)
            | asdict(effect)
            | {
                "alpha": key.alpha,
                "half": half,
                "measure": name,
                "n_samples": int(chosen.sum()),
                "perplexity_ratio": ratio,
                "chosen": False,
                "status": _status(measured.above[target], effect.effect, ratio, max_ratio),
            }
            | _matching(of_group)
        )
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _dissociation(
    results: Results,
    targets: tuple[int, int],
    measures: tuple[str, str],
    resamples: int,
    seed: int,
    max_ratio: float,
) -> dict[str, Any]:
    own, other = (results.measures[name] for name in measures)
    weights = draw_samples(own.above.shape[1], resamples, seed)
    random = (results.random(targets[0]), results.random(targets[1]))
    found = contrast_groups(own, other, targets, random, weights)
    is_broken = any(
        not perplexity_ratio(results.measures[GUARD], one) <= max_ratio for one in targets
    )
    first, second = (results.keys[one].group for one in targets)
    row = (
        _group_columns(first)
        | asdict(found)
        | {
            "other": second.name,
            "measure": measures[0],
            "other_measure": measures[1],
            "n_samples": own.above.shape[1],
            "verdict": verdict(found, is_broken, LEVEL),
        }
    )
    return {name: _plain(value) for name, value in row.items()}


def _best_alpha(group: Group, rows: Sequence[Mapping[str, Any]], max_ratio: float) -> float | None:
    measures = {row["measure"] for row in rows}
    if f"{SAYS}{group.name}" in measures:
        objective, sign = f"{SAYS}{group.name}", 1.0
    elif "right" in measures:
        objective, sign = "right", 1.0
    else:
        objective, sign = "visual_words", -1.0
    found = [row for row in rows if row["measure"] == objective and row["half"] == CHOOSE]
    nan = float("nan")
    scores = {
        row["alpha"]: sign * (nan if row["changed"] is None else row["changed"]) for row in found
    }
    ratios = {
        row["alpha"]: nan if row["perplexity_ratio"] is None else row["perplexity_ratio"]
        for row in found
    }
    if found and found[0]["intact"] is not None:
        scores[1.0], ratios[1.0] = sign * found[0]["intact"], 1.0
    best = choose_alpha(scores, ratios, max_ratio)
    return None if best == 1 else best


def _matching(sets: Sequence[NeuronSet]) -> dict[str, Any]:
    """Return how large the group is, and how well its random sets match it."""
    (target,) = (one for one in sets if one.draw < 0)
    random = [one for one in sets if one.draw >= 0]
    size = max(1, target.n_neurons)

    def mean(of: Mapping[int, float], one: NeuronSet) -> float:
        return sum(of[layer] * len(some) for layer, some in one.neurons.items()) / size

    norm = mean(target.norm, target)
    return {
        "n_neurons": target.n_neurons,
        "norm_ratio": np.mean([mean(one.norm, one) for one in random]) / norm if norm else np.nan,
        "overlap": np.mean([mean(one.overlap, one) for one in random]) if random else np.nan,
    }


def _status(above: np.ndarray, effect: float, ratio: float, max_ratio: float) -> str:
    if not np.isfinite(above).all():
        return "overflow"
    if not np.isfinite(effect):
        return "undefined"
    return "ok" if ratio <= max_ratio else "broken"


def _group_columns(group: Group) -> dict[str, Any]:
    return {
        "group": group.name,
        "share": group.share,
        "first_layer": group.first_layer,
        "last_layer": group.last_layer,
    }


def _place(group: Group) -> tuple[float, int, int]:
    return group.share, group.first_layer, group.last_layer


def _plain(value: Any) -> Any:
    """Return a number as Python's own; None for NaN and infinity."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
