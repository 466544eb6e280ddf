"""The settings of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from neuron_atlas.tasks.settings import AtLeastOne

_Count = Annotated[int, Ge(0)]


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
    exemplars: _Count = 8
    exemplars_of_others: _Count = 2
    listed: _Count = 20
    held_out: _Count = 6
    image_px: Annotated[int, Interval(ge=16, le=4096)] = 336
    image_quality: Annotated[int, Interval(ge=1, le=100)] = 82


@dataclass(frozen=True)
class ReportSettings:
    """How much the page shows: neurons of each type, exemplars of each neuron; and the site."""

    neurons_per_type: AtLeastOne = 6
    exemplars: AtLeastOne = 6
    title: str = "neuron-atlas"
    site: SiteSettings = field(default_factory=SiteSettings)


@dataclass(frozen=True)
class About:
    """What was run, in words for the head of the page; facts: further names and values; site: where
    the site lies in the run's output folder, empty where there is none."""

    subject: str
    dataset: str
    fingerprint: str
    facts: tuple[tuple[str, str], ...]
    site: str = ""
