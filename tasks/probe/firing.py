"""Rank neurons by how rare their peaks on one sample are among their own activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuron_atlas.tasks.artifacts import HISTOGRAMS, MOMENTS, read_table
from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.probe.observe import Peaks
from neuron_atlas.tasks.probe.quantiles import SILENT_BELOW, chance, quantiles_of
from neuron_atlas.tasks.report.inputs import files_of_layer
from neuron_atlas.tasks.subject.encode import EncodedSample

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas

_ROLES = ("visual", "text")
_TABLES = ("histograms", "moments")


@dataclass(frozen=True)
class Firing:
    """A neuron's rarest peak on one sample. The fields are those of `FiringNeuron`.

    token: index of the peak within its role. peak: highest activation over all roles in which the
    run ranked its samples.
    """

    layer: int
    neuron: int
    role: str
    token: int
    activation: float
    quantile: float
    quantile_low: float
    quantile_high: float
    n_tokens: int
    highest: float
    peak: float
    order: tuple[float, float]


@dataclass(frozen=True)
class Ranking:
    """The neurons that fire most on a sample, the rarest peak first. n_silent of n_neurons do not
    fire."""

    firing: list[Firing]
    n_neurons: int
    n_silent: int


def rank_neurons(
    atlas: Atlas, peaks: Mapping[int, Peaks], encoded: EncodedSample, count: int
) -> Ranking:
    """Return the `count` neurons with the rarest peaks on a sample.

    Of its two roles, a neuron is ranked by the one in which its peak is rarer: by the chance that a
    sample of this length has a higher one. Peaks above all that the neuron did over the dataset
    come first, by how far they exceed it.
    """
    roles = atlas.run.parameter("capture", "capture").get("peak_roles", _ROLES)
    n_tokens = {"visual": encoded.n_visual, "text": encoded.n_text}
    firing: list[Firing] = []
    n_neurons = n_silent = 0
    for layer, of_layer in sorted(peaks.items()):
        measured = _measure(atlas, layer, of_layer, n_tokens)
        fires = np.flatnonzero(np.isfinite(measured.chance))
        n_neurons += len(measured.chance)
        n_silent += len(measured.chance) - len(fires)
        order = np.lexsort((fires, -measured.excess[fires], measured.chance[fires]))
        evidence = [_ROLES.index(role) for role in roles]
        peak = of_layer.values[evidence].max(0)
        firing += [_firing(layer, neuron, measured, peak) for neuron in fires[order[:count]]]
    firing.sort(key=lambda one: (*one.order, one.layer, one.neuron))
    return Ranking(firing[:count], n_neurons, n_silent)


@dataclass(frozen=True)
class _Measured:
    """Measures of a layer's neurons in the role in which each is rarest. All are [neurons].

    role: index into _ROLES. chance: NaN for a silent neuron. excess: peak over the highest
    activation of the dataset.
    """

    role: np.ndarray
    token: np.ndarray
    activation: np.ndarray
    quantile: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_tokens: np.ndarray
    highest: np.ndarray
    chance: np.ndarray
    excess: np.ndarray


def _measure(atlas: Atlas, layer: int, peaks: Peaks, n_tokens: Mapping[str, int]) -> _Measured:
    files = files_of_layer(layer, {name: atlas.run.paths(name) for name in _TABLES})
    histograms = read_table(files["histograms"], HISTOGRAMS).sort_by("neuron")
    moments = read_table(files["moments"], MOMENTS).sort_by("neuron")
    n_neurons = len(moments)
    if peaks.values.shape[1] != n_neurons or len(histograms) != n_neurons:
        raise ProbeError(
            f"layer {layer} has {peaks.values.shape[1]:,} neurons, and the run captured "
            f"{n_neurons:,} of them"
        )
    columns = []
    for index, role in enumerate(_ROLES):
        counts = histograms[role].combine_chunks().flatten().to_numpy().reshape(n_neurons, -1)
        highest = moments[f"max_{role}"].to_numpy().astype(np.float64)
        values = peaks.values[index].astype(np.float64)
        found = quantiles_of(values, counts, highest)
        columns.append(
            (
                np.full(n_neurons, index),
                peaks.tokens[index],
                values,
                found.quantile,
                found.low,
                found.high,
                moments[f"n_{role}"].to_numpy(),
                highest,
                chance(found.quantile, n_tokens[role]),
                values / np.maximum(np.nan_to_num(highest, nan=0.0), SILENT_BELOW),
            )
        )
    rarest = np.argmin(np.stack([np.nan_to_num(one[8], nan=2.0) for one in columns]), 0)
    chosen = (np.choose(rarest, pair) for pair in zip(*columns, strict=True))
    return _Measured(*chosen)


def _firing(layer: int, neuron: int, measured: _Measured, peak: np.ndarray) -> Firing:
    return Firing(
        layer=layer,
        neuron=int(neuron),
        role=_ROLES[measured.role[neuron]],
        token=int(measured.token[neuron]),
        activation=float(measured.activation[neuron]),
        quantile=float(measured.quantile[neuron]),
        quantile_low=float(measured.low[neuron]),
        quantile_high=float(measured.high[neuron]),
        n_tokens=int(measured.n_tokens[neuron]),
        highest=float(measured.highest[neuron]),
        peak=float(peak[neuron]),
        order=(float(measured.chance[neuron]), -float(measured.excess[neuron])),
    )
