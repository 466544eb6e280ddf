"""Settings of the `analyse` stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class AnalyseSettings:
    """Settings of the `analyse` stage.

    strong_share: a token is strong from this share of the neuron's maximum. min_exemplars: a role
    with fewer strong exemplars has no concept. min_share: share of a role's strong exemplars that
    must share a word. min_lift: for an image word, its share in the visual exemplars' texts must be
    this many times its share in all texts. top_words: words stored per neuron and per type.
    max_meanings: most clusters of a neuron's exemplars that are tried. min_agreement: least mean
    adjusted Rand index between clusters from both halves of the exemplars. splits: random halves.
    seed: of their draw.
    """

    strong_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    min_exemplars: AtLeastOne = 5
    min_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    min_lift: Annotated[float, Ge(1)] = 2.0
    top_words: AtLeastOne = 10
    max_meanings: AtLeastOne = 4
    min_agreement: Annotated[float, Interval(ge=0, le=1)] = 0.8
    splits: AtLeastOne = 4
    seed: int = 0
