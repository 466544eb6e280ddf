"""The settings of the analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class AnalyseSettings:
    """strong: share of a neuron's maximum from which a token counts as strong.

    min_exemplars: strong exemplars of a role without which it names nothing. min_share: share of
    a role's exemplars that must have a word in common. min_lift: how many times the share of all
    texts that have it that must be, for a word to be seen in images. favourites: words kept of
    each neuron and of each type.
    """

    strong: Annotated[float, Interval(gt=0, le=1)] = 0.5
    min_exemplars: AtLeastOne = 5
    min_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    min_lift: Annotated[float, Ge(1)] = 2.0
    favourites: AtLeastOne = 10
