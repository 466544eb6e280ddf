"""Evidence of a neuron: activation records of the samples that explain and score it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import list_rows

Purpose = Literal["explainer", "calibration", "scorer"]
Draw = Literal["exemplar", "random", "near_miss"]


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
    """Sample_ids of a neuron's evidence by purpose. Raises ValueError if two purposes share one."""

    explainer: tuple[int, ...] = ()
    calibration: tuple[int, ...] = ()
    scorer: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        parts = [set(self[part.name]) for part in fields(self)]
        if len(set().union(*parts)) < sum(map(len, parts)):
            self._check("sample", {i: {str(i)} for part in parts for i in part})

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
    of all purposes, to record which are held out. near_misses: samples that an explanation predicts
    and that are no exemplars; only a scorer has them.
    """

    layer: int
    neuron: int
    type: str
    scale: float
    exemplars: tuple[ActivationRecord, ...]
    random: tuple[ActivationRecord, ...]
    split: Split = Split()
    near_misses: tuple[ActivationRecord, ...] = ()

    @property
    def records(self) -> tuple[ActivationRecord, ...]:
        """All exemplars, random samples and near misses."""
        return (*self.exemplars, *self.random, *self.near_misses)

    @property
    def sample_ids(self) -> list[int]:
        """Ids of all samples."""
        return [record.sample_id for record in self.records]


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


def activation_records(table: pa.Table) -> list[ActivationRecord]:
    """Return what each row of `evidence` or `simulations` holds."""
    visual, text = (
        [row.astype(np.float32) for row in list_rows(table[role])] for role in ("visual", "text")
    )
    return list(map(ActivationRecord, table["sample_id"].to_pylist(), visual, text))


def _spread(records: Sequence[ActivationRecord], count: int) -> list[ActivationRecord]:
    return [records[(2 * index + 1) * len(records) // (2 * count)] for index in range(count)]
