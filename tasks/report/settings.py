"""The settings of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportSettings:
    """How much the page shows: neurons of each type, exemplars of each neuron."""

    neurons_per_type: int = 6
    exemplars: int = 6
    title: str = "neuron-atlas"

    def __post_init__(self) -> None:
        if self.neurons_per_type < 1 or self.exemplars < 1:
            raise ValueError("neurons_per_type, exemplars: must be at least 1")


@dataclass(frozen=True)
class About:
    """What was run, in words for the head of the page; facts: further names and values."""

    subject: str
    dataset: str
    fingerprint: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's numbers are: the files of each table, and each layer's traces."""

    tables: Mapping[str, tuple[Path, ...]]
    traces: Mapping[int, Path]
