"""Join the neurons that fire on a probe with all that the run knows about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.atlas.neuron import level_of
from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.probe.firing import Firing
from neuron_atlas.tasks.probe.result import FiringNeuron
from neuron_atlas.tasks.probe.wording import EFFECT_COLUMNS
from neuron_atlas.tasks.report.inputs import SampleFiles, Slot, files_of_layer, read_slots
from neuron_atlas.tasks.report.record import Exemplar, NeuronRecord, read_records
from neuron_atlas.tasks.samples.catalog import Catalog, Sample

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas

_EXEMPLARS = 2
_SAMPLE = 0


def gather_neurons(
    atlas: Atlas,
    firing: Sequence[Firing],
    traces: Mapping[tuple[int, int], ActivationRecord],
    catalog: Catalog,
) -> tuple[FiringNeuron, ...]:
    """Return the neurons of `firing`, in their order, with types, explanations, scores, exemplars
    and effects.

    traces: of each of them on the probe. catalog: holds the probe as its only sample.
    """
    run, level = atlas.run, level_of(atlas)
    samples = SampleFiles(
        tuple(run.paths("samples")), tuple(run.paths("descriptions")), atlas.source
    )
    tables = {name: run.paths(name) for name in atlas.tables}
    records: dict[tuple[int, int], NeuronRecord] = {}
    slots: dict[tuple[int, int], Sequence[Slot]] = {}
    for layer in sorted({one.layer for one in firing}):
        files = files_of_layer(layer, tables)
        neurons = [one.neuron for one in firing if one.layer == layer]
        found = read_records(files, neurons, samples.open, exemplars=_EXEMPLARS, level=level)
        records |= {(layer, neuron): record for neuron, record in found.items()}
        slots |= {(layer, neuron): ranked for neuron, ranked in read_slots(files, neurons).items()}
    effects = _effects(atlas, [(one.layer, one.neuron) for one in firing])
    return tuple(
        _gathered(one, records[key], slots[key], traces[key], catalog, effects.get(key, {}))
        for one in firing
        for key in [(one.layer, one.neuron)]
    )


def _gathered(
    one: Firing,
    record: NeuronRecord,
    slots: Sequence[Slot],
    trace: ActivationRecord,
    catalog: Catalog,
    effects: Mapping[str, tuple[Mapping[str, Any], ...]],
) -> FiringNeuron:
    higher = sum(slot.peak > one.peak for slot in slots)
    role = ROLES.index(one.role)
    return FiringNeuron(
        role=one.role,
        activation=one.activation,
        place=_place(one, catalog[_SAMPLE]),
        quantile=one.quantile,
        quantile_low=one.quantile_low,
        quantile_high=one.quantile_high,
        n_tokens=one.n_tokens,
        highest=one.highest,
        rank=higher if higher < len(slots) else None,
        record=record,
        probe=Exemplar(_SAMPLE, 0, one.activation, role, one.token, record.scale, catalog, trace),
        effects=effects,
    )


def _place(one: Firing, sample: Sample) -> str:
    """Return where the peak is: the word, or the part of the image."""
    if one.role == "text":
        word = sample.tokens[one.token].strip()
        return f"at \N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}"
    view = sample.view
    left, top, right, bottom = token_boxes(view.regions)[one.token].tolist()
    across = round((left + right) / 2 / view.width * 100)
    down = round((top + bottom) / 2 / view.height * 100)
    return f"in the image, {across} % across, {down} % down"


def _effects(
    atlas: Atlas, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[str, tuple[Mapping[str, Any], ...]]]:
    """Return the rows of the tables of effects by neuron and name of the table."""
    wanted = pl.LazyFrame(
        {"layer": [layer for layer, _ in keys], "neuron": [neuron for _, neuron in keys]},
        schema={"layer": pl.Int16, "neuron": pl.Int32},
    )
    found: dict[tuple[int, int], dict[str, tuple[Mapping[str, Any], ...]]] = {}
    for name in EFFECT_COLUMNS:
        if name in atlas.tables:
            rows = atlas.table(name).join(wanted, on=["layer", "neuron"], how="semi").collect()
            for row in rows.to_dicts():
                of_neuron = found.setdefault((row["layer"], row["neuron"]), {})
                of_neuron[name] = (*of_neuron.get(name, ()), row)
    return found
