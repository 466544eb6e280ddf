"""Choose the near misses of each neuron's explanation, and count its strata."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import CHOSEN, EVIDENCE, STRATUM_SIZES, read_table
from neuron_atlas.tasks.evidence.choose import image_names
from neuron_atlas.tasks.evidence.strata import Strata, claim_of
from neuron_atlas.tasks.near_misses.predicted import predicted_samples, read_index
from neuron_atlas.tasks.near_misses.settings import NearMissSettings

_SPARE = 4
"""Candidates per near miss, because those that share an image with seen samples are left out."""


@dataclass(frozen=True)
class ChosenSamples:
    """Samples of a neuron's evidence. exemplars: all. seen: of the explainer and the calibration.
    scored: the scorer's exemplars and random samples."""

    exemplars: frozenset[int]
    seen: frozenset[int]
    scored: frozenset[int]


def choose_near_misses(
    layer: int,
    explainer: str,
    texts: Mapping[int, str],
    index: Sequence[Path],
    evidence: Sequence[Path],
    samples: Sequence[Path],
    n_usable: int,
    settings: NearMissSettings,
) -> tuple[pa.Table, pa.Table]:
    """Return rows of `chosen` and of `stratum_sizes` for some neurons of a layer.

    texts: the explanation of each neuron. index: files of `term_samples`. evidence: files of the
    layer. samples: files of `samples`, which list images. n_usable: usable samples of the dataset.
    The rows of a neuron depend on no other neuron. No near miss shares an image with a sample that
    the explainer or the calibration uses.
    """
    found = read_index(index, set(texts.values()))
    chosen = _chosen_samples(evidence, texts)
    strata, candidates = {}, {}
    for neuron, text in texts.items():
        strata[neuron], candidates[neuron] = split_dataset(
            predicted_samples(text, found), chosen[neuron], n_usable, settings
        )
    used = {one for neuron in texts for one in (*chosen[neuron].seen, *candidates[neuron])}
    images = image_names(samples, used)
    drawn = {}
    for neuron, ids in candidates.items():
        seen = {image for one in chosen[neuron].seen for image in images[one]}
        drawn[neuron] = [one for one in ids if not images[one] & seen][: settings.samples]
    return _rows(layer, strata, drawn), _sizes(layer, explainer, texts, strata)


def split_dataset(
    predicted: np.ndarray, chosen: ChosenSamples, n_usable: int, settings: NearMissSettings
) -> tuple[Strata, list[int]]:
    """Return a neuron's strata, and candidates for its near misses in the order of the draw.

    predicted: the samples that the explanation predicts. A sample of the evidence is no candidate:
    the scorer has it already, or the explainer saw it.
    """
    known = chosen.exemplars | chosen.seen | chosen.scored
    n_exemplars = len(chosen.exemplars)
    n_near = 0
    candidates: list[int] = []
    if settings.samples:
        n_near = int((~np.isin(predicted, list(chosen.exemplars))).sum())
        free = predicted[~np.isin(predicted, list(known))]
        candidates = _shuffled(free, settings.seed)[: _SPARE * settings.samples].tolist()
    sizes = (n_exemplars, n_near, n_usable - n_exemplars - n_near)
    scored = frozenset(predicted[np.isin(predicted, list(chosen.scored))].tolist())
    return Strata(sizes, len(predicted), scored), candidates


def _shuffled(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return ids in an order that depends only on each id and the seed (splitmix64)."""
    mixed = ids.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ids[np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable")]


def _chosen_samples(evidence: Sequence[Path], neurons: Collection[int]) -> dict[int, ChosenSamples]:
    columns = ["neuron", "purpose", "stratum", "sample_id"]
    purposes = [("purpose", "in", ["calibration", "explainer", "scorer"])]
    rows = read_table(evidence, EVIDENCE, columns, neurons=neurons, only=purposes)
    found: dict[int, tuple[set[int], set[int], set[int]]] = {
        neuron: (set(), set(), set()) for neuron in neurons
    }
    for neuron, purpose, stratum, sample_id in zip(
        *(rows[name].to_pylist() for name in columns), strict=True
    ):
        exemplars, seen, scored = found[neuron]
        if stratum == "exemplar":
            exemplars.add(sample_id)
        (scored if purpose == "scorer" else seen).add(sample_id)
    return {
        neuron: ChosenSamples(*(frozenset(ids) for ids in its)) for neuron, its in found.items()
    }


def _rows(layer: int, strata: Mapping[int, Strata], drawn: Mapping[int, Sequence[int]]) -> pa.Table:
    rows = []
    for neuron, ids in drawn.items():
        weight = strata[neuron].sizes[1] / max(1, len(ids))
        same: dict[str, Any] = {"layer": layer, "neuron": neuron, "rank": -1, "weight": weight}
        same |= {"purpose": "scorer", "stratum": "near_miss"}
        rows += [same | {"sample_id": one} for one in ids]
    rows.sort(key=lambda row: (row["sample_id"], row["neuron"]))
    return pa.Table.from_pylist(rows, schema=CHOSEN.schema)


def _sizes(
    layer: int, explainer: str, texts: Mapping[int, str], strata: Mapping[int, Strata]
) -> pa.Table:
    rows = [
        {
            "layer": layer,
            "neuron": neuron,
            "explainer": explainer,
            "claim": claim_of(texts[neuron]),
            **dict(zip(("exemplars", "near_misses", "rest"), its.sizes, strict=True)),
            "predicted": its.predicted,
            "predicted_ids": sorted(its.predicted_ids),
        }
        for neuron, its in sorted(strata.items())
    ]
    return pa.Table.from_pylist(rows, schema=STRATUM_SIZES.schema)
