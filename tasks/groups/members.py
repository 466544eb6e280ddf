"""Decide the types of neurons without some samples, and the size of their activations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import NO_SAMPLE, TYPE_COLUMNS, slot_values
from neuron_atlas.tasks.artifacts.grouped import GROUP_MEMBERS

_ROLES = ("visual", "text")


class TypeRule(Protocol):
    """A rule of `classify`, which types one layer's neurons."""

    def types(self, exemplars: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the `types` rows of the neurons in `moments`."""


@dataclass(frozen=True)
class Members:
    """The neurons of one layer, by index.

    neurons: int64. types: str. shares: float32, share of the exemplars that have the type. norms:
    float64, root mean square activation over visual and text tokens. means: float64, mean
    activation over all tokens.
    """

    layer: int
    neurons: np.ndarray
    types: np.ndarray
    shares: np.ndarray
    norms: np.ndarray
    means: np.ndarray


def decide_members(
    rule: TypeRule, exemplars: pa.Table, moments: pa.Table, measured: Collection[int]
) -> Members:
    """Return the neurons of one layer with the types that they have without `measured` samples.

    The votes of these samples are left out, and the activation that maps to 10 is the highest one
    of the other samples: it is a neuron's strongest exemplar among them. So nothing that is
    measured later has decided a type. A neuron whose exemplars are all measured has no exemplars
    and is unknown.
    """
    layer = moments["layer"][0].as_py()
    without = _without(exemplars, measured)
    typed = rule.types(without, _with_maxima(moments, without))
    return Members(
        layer=layer,
        neurons=typed["neuron"].to_numpy().astype(np.int64),
        types=np.array(typed["type"].to_pylist()),
        shares=np.stack([typed[name].to_numpy() for name in TYPE_COLUMNS.values()]).max(0),
        norms=_norms(moments),
        means=_means(moments),
    )


def members_table(members: Members) -> pa.Table:
    """Return rows of `group_members`."""
    columns = {
        "layer": np.full(len(members.neurons), members.layer),
        "neuron": members.neurons,
        "type": members.types.tolist(),
        "share": members.shares,
        "norm": members.norms,
        "mean": members.means,
    }
    return pa.table(columns).cast(GROUP_MEMBERS.schema)


def read_members(table: pa.Table) -> list[Members]:
    """Return the layers in rows of `group_members`, ascending."""
    layers = table["layer"].to_numpy()
    found = []
    for layer in sorted(set(layers.tolist())):
        rows = table.filter(pa.array(layers == layer)).sort_by("neuron")
        neurons, shares, norms, means = (
            rows[name].to_numpy() for name in ("neuron", "share", "norm", "mean")
        )
        types = np.array(rows["type"].to_pylist())
        found.append(Members(layer, neurons.astype(np.int64), types, shares, norms, means))
    return found


def _without(exemplars: pa.Table, measured: Collection[int]) -> pa.Table:
    """Empty the slots of the measured samples, and move them behind the others."""
    ids = slot_values(exemplars, "sample_id")
    is_out = np.isin(ids, np.fromiter(measured, np.int64, len(measured)))
    order = np.argsort(is_out, axis=1, kind="stable")
    kept = np.take_along_axis(~is_out, order, 1)
    columns = {"layer": exemplars["layer"], "neuron": exemplars["neuron"]}
    slots = np.where(kept, np.take_along_axis(ids, order, 1), NO_SAMPLE)
    columns["sample_id"] = _fixed(slots.astype(np.int32))
    peaks = np.take_along_axis(slot_values(exemplars, "peak"), order, 1)
    columns["peak"] = _fixed(np.where(kept, peaks, np.nan).astype(np.float32))
    for role in _ROLES:
        top = slot_values(exemplars, f"{role}_top")
        top = np.take_along_axis(top, order[:, :, None], 1)
        top = np.where(kept[:, :, None], top, np.nan).astype(np.float32)
        offsets = np.arange(len(top) + 1, dtype=np.int32) * (top.shape[1] * top.shape[2])
        columns[f"{role}_top"] = pa.ListArray.from_arrays(pa.array(offsets), top.ravel())
    return pa.table(columns)


def _fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _with_maxima(moments: pa.Table, exemplars: pa.Table) -> pa.Table:
    """Return moments whose maxima over visual and text tokens are those of `exemplars`."""
    rows = {neuron: row for row, neuron in enumerate(exemplars["neuron"].to_pylist())}
    order = np.array([rows[one] for one in moments["neuron"].to_pylist()], np.int64)
    for role in _ROLES:
        top = slot_values(exemplars, f"{role}_top")[order]
        flat = top.reshape(len(top), -1)
        with np.errstate(invalid="ignore"):
            highest = np.fmax.reduce(flat, axis=1) if flat.shape[1] else np.full(len(top), np.nan)
        position = moments.schema.get_field_index(f"max_{role}")
        moments = moments.set_column(
            position, moments.schema.field(position), pa.array(highest.astype(np.float32))
        )
    return moments


def _norms(moments: pa.Table) -> np.ndarray:
    counts, squares = (np.zeros(len(moments)) for _ in range(2))
    for role in _ROLES:
        n, mean, m2 = (moments[f"{name}_{role}"].to_numpy() for name in ("n", "mean", "m2"))
        counts = counts + n
        squares = squares + np.where(n > 0, np.nan_to_num(m2) + n * np.nan_to_num(mean) ** 2, 0)
    return np.sqrt(squares / np.maximum(counts, 1))


def _means(moments: pa.Table) -> np.ndarray:
    roles = (*_ROLES, "template")
    counts = np.stack([moments[f"n_{role}"].to_numpy() for role in roles])
    means = np.nan_to_num(np.stack([moments[f"mean_{role}"].to_numpy() for role in roles]))
    return (counts * means).sum(0) / np.maximum(counts.sum(0), 1)
