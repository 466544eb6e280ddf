"""The settings of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from neuron_atlas.tasks.settings import AtLeastOne

_Count = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class SiteSettings:
    """Settings of the site. They limit its size.

    write: whether to write a site. exemplars: exemplars with heat maps, for an explained neuron.
    exemplars_of_unexplained: the same for a neuron that was not explained. total_exemplars:
    exemplars per neuron in total; those without a heat map show their image and peak. held_out:
    samples per neuron that show real and simulated activations, half of them exemplars. image_px:
    longest side of an image in pixels. image_quality: quality of its WebP file, 1 to 100.
    """

    write: bool = True
    exemplars: _Count = 8
    exemplars_of_unexplained: _Count = 2
    total_exemplars: _Count = 20
    held_out: _Count = 6
    image_px: Annotated[int, Interval(ge=16, le=4096)] = 336
    image_quality: Annotated[int, Interval(ge=1, le=100)] = 82


@dataclass(frozen=True)
class ReportSettings:
    """Settings of the report: its page (neurons per type, exemplars per neuron) and its site."""

    neurons_per_type: AtLeastOne = 6
    exemplars: AtLeastOne = 6
    title: str = "neuron-atlas"
    site: SiteSettings = field(default_factory=SiteSettings)


@dataclass(frozen=True)
class About:
    """Description of the run for the head of the page.

    facts: further names and values. site: path of the site in the run's output folder; empty if
    there is no site.
    """

    subject: str
    dataset: str
    fingerprint: str
    facts: tuple[tuple[str, str], ...]
    site: str = ""
