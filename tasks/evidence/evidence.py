"""What an explainer and a scorer may look at: disjoint samples, and disjoint images, of one
neuron's traces."""

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
    read_rows,
    read_table,
    rows_with,
)

Purpose = Literal["explainer", "calibration", "scorer"]
Draw = Literal["exemplar", "random"]

_EXEMPLAR_PURPOSES: tuple[Purpose, ...] = ("explainer", "scorer", "explainer", "calibration")
_RANDOM_PURPOSES: tuple[Purpose, ...] = ("scorer", "explainer", "scorer", "calibration")


@dataclass(frozen=True)
class Excitation:
    """A neuron's activations on one sample, in activation units.

    visual: float32 [n_visual], in the order of the sample's regions. text: float32 [n_text].
    """

    sample_id: int
    visual: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class Split:
    """The sample_ids of one neuron's traces by purpose. Raises ValueError where two share one."""

    explainer: tuple[int, ...] = ()
    calibration: tuple[int, ...] = ()
    scorer: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check("sample", {one: {str(one)} for part in fields(self) for one in self[part.name]})

    def __getitem__(self, purpose: str) -> tuple[int, ...]:
        return getattr(self, purpose)

    def check_images(self, images: Mapping[int, Collection[str]]) -> None:
        """Raise ValueError where two purposes share an image (`images`: names by sample_id)."""
        self._check("image", images)

    def _check(self, what: str, names: Mapping[int, Collection[str]]) -> None:
        for one, other in combinations([part.name for part in fields(self)], 2):
            first, second = (
                {n for seen in self[side] for n in names[seen]} for side in (one, other)
            )
            if both := first & second:
                raise ValueError(
                    f"{one} and {other} share the {what} {min(both)}: a score would prove nothing"
                )


@dataclass(frozen=True)
class Evidence:
    """One neuron's exemplars (strongest first) and random samples, for one purpose.

    scale: the neuron's maximum over the dataset, the activation that counts as 10. split: the
    samples of all purposes, so that what is held out can be recorded.
    """

    layer: int
    neuron: int
    type: str
    scale: float
    exemplars: tuple[Excitation, ...]
    random: tuple[Excitation, ...]
    split: Split = Split()

    @property
    def sample_ids(self) -> list[int]:
        """Every sample that this evidence shows."""
        return [seen.sample_id for seen in (*self.exemplars, *self.random)]


def to_ten(activations: np.ndarray, scale: float) -> np.ndarray:
    """Normalise as the paper does: negative values to 0, the neuron's maximum to 10."""
    if scale <= 0:
        return np.zeros_like(activations, dtype=np.float32)
    return np.clip(activations, 0, None).astype(np.float32) * np.float32(10 / scale)


def to_levels(tens: np.ndarray) -> np.ndarray:
    """Activations of 0 to 10 as the integers that an explainer is shown, uint8; NaN is 0."""
    return np.rint(np.clip(np.nan_to_num(tens), 0, 10)).astype(np.uint8)


def one_to_one(evidence: Evidence) -> list[tuple[Draw, Excitation]]:
    """Equally many exemplars and random samples: what the evidence has of the scarcer kind.

    Of the other kind as many are taken, spread evenly over it, so that of exemplars the strong and
    the weak remain.
    """
    count = min(len(evidence.exemplars), len(evidence.random))
    drawn: list[tuple[Draw, Excitation]] = []
    drawn += [("exemplar", seen) for seen in _spread(evidence.exemplars, count)]
    drawn += [("random", seen) for seen in _spread(evidence.random, count)]
    return drawn


def read_traces(path: Path, spec: TableSpec, neurons: Sequence[int]) -> pa.Table:
    """The traces (or random traces) of some `neurons` of the layer that `path` holds."""
    wanted = [int(neuron) for neuron in neurons]
    if not wanted:
        return spec.schema.empty_table()
    return read_rows(path, filters=rows_with("neuron", wanted)).cast(spec.schema)


def excitations(table: pa.Table) -> list[Excitation]:
    """Return what each row of `traces`, `random_traces` or `simulations` holds."""
    visual, text = (
        [row.astype(np.float32) for row in list_rows(table[role])] for role in ("visual", "text")
    )
    return list(map(Excitation, table["sample_id"].to_pylist(), visual, text))


def load_evidence(
    types: pa.Table,
    traces: Path,
    random_traces: Path,
    samples: Sequence[Path],
) -> dict[Purpose, list[Evidence]]:
    """Load the evidence of the neurons in `types` (rows of one layer) by purpose, in their order.

    samples: the files of the `samples` artifact, which name the images of each sample. Samples
    that share an image have one purpose for a neuron: a score on pixels that the explainer saw
    under another caption would prove nothing. Purposes take turns down the ranking, so explainer
    and scorer see equally strong samples; then they take turns among the random samples. Images
    are the same if their bytes or their references are: re-encoded copies count as different.
    """
    neurons = types["neuron"].to_pylist()
    ranked = _by_neuron(
        read_traces(traces, TRACES, neurons).sort_by(
            [("neuron", "ascending"), ("rank", "ascending")]
        )
    )
    drawn = _by_neuron(read_traces(random_traces, RANDOM_TRACES, neurons))
    everything = (*ranked.values(), *drawn.values())
    images = _images(samples, {seen.sample_id for group in everything for seen in group})
    evidence: dict[Purpose, list[Evidence]] = {purpose: [] for purpose in get_args(Purpose)}
    for row in types.to_pylist():
        exemplars = ranked.get(row["neuron"], [])
        used = {seen.sample_id for seen in exemplars}
        random = [seen for seen in drawn.get(row["neuron"], []) if seen.sample_id not in used]
        purposes = _take_turns(exemplars, random, images)
        split = Split(
            **{
                name: tuple(one for one, given in purposes.items() if given == name)
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
                    exemplars=tuple(
                        seen for seen in exemplars if purposes[seen.sample_id] == purpose
                    ),
                    random=tuple(seen for seen in random if purposes[seen.sample_id] == purpose),
                    split=split,
                )
            )
    return evidence


def _take_turns(
    exemplars: Sequence[Excitation],
    random: Sequence[Excitation],
    images: Mapping[int, Collection[str]],
) -> dict[int, Purpose]:
    """The purpose of every sample: that of its group, which a group gets with its first sample."""
    groups = _groups([seen.sample_id for seen in (*exemplars, *random)], images)
    given: dict[int, Purpose] = {}
    purposes = {}
    for seen_by_rank, turns in ((exemplars, _EXEMPLAR_PURPOSES), (random, _RANDOM_PURPOSES)):
        turn = cycle(turns)
        for seen in seen_by_rank:
            group = groups[seen.sample_id]
            if group not in given:
                given[group] = next(turn)
            purposes[seen.sample_id] = given[group]
    return purposes


def _groups(sample_ids: Sequence[int], images: Mapping[int, Collection[str]]) -> dict[int, int]:
    """For every sample one that stands for all that it is linked to by shared images."""
    stands_for = {sample_id: sample_id for sample_id in sample_ids}

    def leader(sample_id: int) -> int:
        while stands_for[sample_id] != sample_id:
            sample_id = stands_for[sample_id]
        return sample_id

    first: dict[str, int] = {}
    for sample_id in sample_ids:
        for image in images[sample_id]:
            stands_for[leader(sample_id)] = leader(first.setdefault(image, sample_id))
    return {sample_id: leader(sample_id) for sample_id in sample_ids}


def _images(samples: Sequence[Path], wanted: Collection[int]) -> dict[int, frozenset[str]]:
    """What each wanted sample's images are known by: their references, and the hash of their
    bytes. A sample may have none."""
    columns = ["sample_id", "images", "image_sha256"]
    images: dict[int, frozenset[str]] = dict.fromkeys(wanted, frozenset())
    table = read_table(samples, SAMPLES, columns, sample_ids=wanted)
    for sample_id, references, digest in zip(
        *(table[name].to_pylist() for name in columns), strict=True
    ):
        images[sample_id] = frozenset(filter(None, (*(references or ()), digest)))
    return images


def _spread(seen: Sequence[Excitation], count: int) -> list[Excitation]:
    return [seen[(2 * place + 1) * len(seen) // (2 * count)] for place in range(count)]


def _by_neuron(table: pa.Table) -> dict[int, list[Excitation]]:
    rows = zip(table["neuron"].to_pylist(), excitations(table), strict=True)
    return {
        neuron: [excitation for _, excitation in group]
        for neuron, group in groupby(rows, key=lambda row: row[0])
    }
