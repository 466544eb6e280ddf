"""Split one neuron's traces into evidence for explainer, calibration and scorer, which share
neither samples nor images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, cycle, groupby
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    RANDOM_TRACES,
    SAMPLES,
    TRACES,
    TableSpec,
    list_rows,
    read_parquet,
    read_table,
    rows_with,
)

Purpose = Literal["explainer", "calibration", "scorer"]
Draw = Literal["exemplar", "random"]

_EXEMPLAR_PURPOSES: tuple[Purpose, ...] = ("explainer", "scorer", "explainer", "calibration")
_RANDOM_PURPOSES: tuple[Purpose, ...] = ("scorer", "explainer", "scorer", "calibration")


@dataclass(frozen=True)
class ActivationRecord:
    """Activations of a neuron on one sample, in activation units.

    visual: float32 [n_visual], in the order of the sample's regions. text: float32 [n_text].
    """

    sample_id: int
    visual: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class Split:
    """Sample_ids of one neuron's traces by purpose. Raises ValueError if two purposes share one."""

    explainer: tuple[int, ...] = ()
    calibration: tuple[int, ...] = ()
    scorer: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check("sample", {i: {str(i)} for part in fields(self) for i in self[part.name]})

    def __getitem__(self, purpose: str) -> tuple[int, ...]:
        return getattr(self, purpose)

    def check_images(self, images: Mapping[int, Collection[str]]) -> None:
        """Raise ValueError if two purposes share an image. images: image names by sample_id."""
        self._check("image", images)

    def _check(self, kind: str, names: Mapping[int, Collection[str]]) -> None:
        for one, other in combinations([part.name for part in fields(self)], 2):
            first, second = (
                {name for sample_id in self[purpose] for name in names[sample_id]}
                for purpose in (one, other)
            )
            if shared := first & second:
                raise ValueError(
                    f"{one} and {other} share the {kind} {min(shared)}; the score would be invalid"
                )


@dataclass(frozen=True)
class Evidence:
    """Exemplars (strongest first) and random samples of one neuron, for one purpose.

    scale: the neuron's maximum over the dataset, the activation that maps to 10. split: the samples
    of all purposes, to record which are held out.
    """

    layer: int
    neuron: int
    type: str
    scale: float
    exemplars: tuple[ActivationRecord, ...]
    random: tuple[ActivationRecord, ...]
    split: Split = Split()

    @property
    def sample_ids(self) -> list[int]:
        """Ids of all exemplars and random samples."""
        return [record.sample_id for record in (*self.exemplars, *self.random)]


def normalize_to_ten(activations: np.ndarray, scale: float) -> np.ndarray:
    """Normalize as in the paper: negative values to 0, the neuron's maximum to 10; float32."""
    if scale <= 0:
        return np.zeros_like(activations, dtype=np.float32)
    return np.clip(activations, 0, None).astype(np.float32) * np.float32(10 / scale)


def to_levels(tens: np.ndarray) -> np.ndarray:
    """Round normalized activations to the integers 0 to 10 of a prompt, uint8; NaN gives 0."""
    return np.rint(np.clip(np.nan_to_num(tens), 0, 10)).astype(np.uint8)


def balanced_samples(evidence: Evidence) -> list[tuple[Draw, ActivationRecord]]:
    """Return equal numbers of exemplars and random samples: all of the smaller group.

    Of the larger group, an evenly spaced subset is taken, so it has strong and weak exemplars.
    """
    count = min(len(evidence.exemplars), len(evidence.random))
    drawn: list[tuple[Draw, ActivationRecord]] = []
    drawn += [("exemplar", record) for record in _spread(evidence.exemplars, count)]
    drawn += [("random", record) for record in _spread(evidence.random, count)]
    return drawn


def read_traces(path: Path, spec: TableSpec, neurons: Sequence[int]) -> pa.Table:
    """Read the traces (or random traces) of some `neurons` from one layer's file."""
    indices = [int(neuron) for neuron in neurons]
    if not indices:
        return spec.schema.empty_table()
    return read_parquet(path, filters=rows_with("neuron", indices)).cast(spec.schema)


def activation_records(table: pa.Table) -> list[ActivationRecord]:
    """Return what each row of `traces`, `random_traces` or `simulations` holds."""
    visual, text = (
        [row.astype(np.float32) for row in list_rows(table[role])] for role in ("visual", "text")
    )
    return list(map(ActivationRecord, table["sample_id"].to_pylist(), visual, text))


def load_evidence(
    types: pa.Table,
    traces: Path,
    random_traces: Path,
    samples: Sequence[Path],
) -> dict[Purpose, list[Evidence]]:
    """Load the evidence of the neurons in `types` (rows of one layer) by purpose, in their order.

    samples: the files of the `samples` artifact, which list the images of each sample. Samples
    that share an image get the same purpose: a score on pixels that the explainer saw with another
    caption would be invalid. Purposes alternate down the ranking, so explainer and scorer get
    equally strong samples, and then over the random samples. Images are the same if their bytes or
    their references are equal; re-encoded copies count as different. Raises ValueError if two
    purposes of a neuron share an image.
    """
    neurons = types["neuron"].to_pylist()
    ranked = _by_neuron(
        read_traces(traces, TRACES, neurons).sort_by(
            [("neuron", "ascending"), ("rank", "ascending")]
        )
    )
    drawn = _by_neuron(read_traces(random_traces, RANDOM_TRACES, neurons))
    all_records = (*ranked.values(), *drawn.values())
    images = _images(samples, {record.sample_id for group in all_records for record in group})
    evidence: dict[Purpose, list[Evidence]] = {purpose: [] for purpose in get_args(Purpose)}
    for row in types.to_pylist():
        exemplars = ranked.get(row["neuron"], [])
        used = {record.sample_id for record in exemplars}
        random = [one for one in drawn.get(row["neuron"], []) if one.sample_id not in used]
        purposes = _assign_purposes(exemplars, random, images)
        split = Split(
            **{
                name: tuple(sample_id for sample_id, purpose in purposes.items() if purpose == name)
                for name in get_args(Purpose)
            }
        )
        split.check_images(images)
        for purpose, neurons_evidence in evidence.items():
            neurons_evidence.append(
                Evidence(
                    layer=row["layer"],
                    neuron=row["neuron"],
                    type=row["type"],
                    scale=row["scale"],
                    exemplars=tuple(one for one in exemplars if purposes[one.sample_id] == purpose),
                    random=tuple(one for one in random if purposes[one.sample_id] == purpose),
                    split=split,
                )
            )
    return evidence


def _assign_purposes(
    exemplars: Sequence[ActivationRecord],
    random: Sequence[ActivationRecord],
    images: Mapping[int, Collection[str]],
) -> dict[int, Purpose]:
    """Return the purpose of every sample. Samples that share images have one purpose, which is
    assigned at the first of them."""
    groups = _groups([record.sample_id for record in (*exemplars, *random)], images)
    group_purposes: dict[int, Purpose] = {}
    purposes = {}
    for records, cycled in ((exemplars, _EXEMPLAR_PURPOSES), (random, _RANDOM_PURPOSES)):
        next_purposes = cycle(cycled)
        for record in records:
            group = groups[record.sample_id]
            if group not in group_purposes:
                group_purposes[group] = next(next_purposes)
            purposes[record.sample_id] = group_purposes[group]
    return purposes


def _groups(sample_ids: Sequence[int], images: Mapping[int, Collection[str]]) -> dict[int, int]:
    """Return the group of every sample: samples linked by shared images have the same group
    (union-find, named by one of its sample_ids)."""
    parents = {sample_id: sample_id for sample_id in sample_ids}

    def root(sample_id: int) -> int:
        while parents[sample_id] != sample_id:
            sample_id = parents[sample_id]
        return sample_id

    first: dict[str, int] = {}
    for sample_id in sample_ids:
        for image in images[sample_id]:
            parents[root(sample_id)] = root(first.setdefault(image, sample_id))
    return {sample_id: root(sample_id) for sample_id in sample_ids}


def _images(samples: Sequence[Path], sample_ids: Collection[int]) -> dict[int, frozenset[str]]:
    """Return the names of each sample's images: their references and the hash of their bytes. A
    sample may have none."""
    columns = ["sample_id", "images", "image_sha256"]
    images: dict[int, frozenset[str]] = dict.fromkeys(sample_ids, frozenset())
    table = read_table(samples, SAMPLES, columns, sample_ids=sample_ids)
    for sample_id, references, digest in zip(
        *(table[name].to_pylist() for name in columns), strict=True
    ):
        images[sample_id] = frozenset(filter(None, (*(references or ()), digest)))
    return images


def _spread(records: Sequence[ActivationRecord], count: int) -> list[ActivationRecord]:
    return [records[(2 * index + 1) * len(records) // (2 * count)] for index in range(count)]


def _by_neuron(table: pa.Table) -> dict[int, list[ActivationRecord]]:
    rows = zip(table["neuron"].to_pylist(), activation_records(table), strict=True)
    return {
        neuron: [record for _, record in group]
        for neuron, group in groupby(rows, key=lambda row: row[0])
    }
