"""The settings of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SiteSettings:
    """How much the site shows of each neuron, which is what bounds its size.

    exemplars: with heat maps, of a neuron that was explained; exemplars_of_others: of one that was
    not. listed: exemplars in all; those without a heat map have their image and peak. held_out:
    samples on which real and simulated activation stand side by side, half of them exemplars.
    image_px: the longer side of an image at most. image_quality: of its WebP, to 100. write:
    whether there is a site at all.
    """

    write: bool = True
    exemplars: int = 8
    exemplars_of_others: int = 2
    listed: int = 20
    held_out: int = 6
    image_px: int = 336
    image_quality: int = 82

    def __post_init__(self) -> None:
        for name in ("exemplars", "exemplars_of_others", "listed", "held_out"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must be at least 0")
        if not 16 <= self.image_px <= 4096:
            raise ValueError("image_px: must be 16 to 4096")
        if not 1 <= self.image_quality <= 100:
            raise ValueError("image_quality: must be 1 to 100")


@dataclass(frozen=True)
class ReportSettings:
    """How much the page shows: neurons of each type, exemplars of each neuron; and the site."""

    neurons_per_type: int = 6
    exemplars: int = 6
    title: str = "neuron-atlas"
    site: SiteSettings = field(default_factory=SiteSettings)

    def __post_init__(self) -> None:
        if self.neurons_per_type < 1 or self.exemplars < 1:
            raise ValueError("neurons_per_type, exemplars: must be at least 1")


@dataclass(frozen=True)
class About:
    """What was run, in words for the head of the page; facts: further names and values; site: where
    the site lies in the run's output folder, empty where there is none."""

    subject: str
    dataset: str
    fingerprint: str
    facts: tuple[tuple[str, str], ...]
    site: str = ""


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's numbers are: the files of each table, and each layer's traces."""

    tables: Mapping[str, tuple[Path, ...]]
    traces: Mapping[int, Path]
