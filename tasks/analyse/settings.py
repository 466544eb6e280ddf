"""Settings of the `analyse` stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from neuron_atlas.tasks.settings import AtLeastOne, Share


@dataclass(frozen=True)
class AnalyseSettings:
    """Settings of the `analyse` stage.

    strong_share: a token is strong from this share of the neuron's maximum. min_exemplars: a role
    with fewer strong exemplars has no concept. min_share: share of a role's strong exemplars that
    must share a word. min_lift: for an image word, its share in the visual exemplars' texts must be
    this many times its share in all texts. top_words: words stored per neuron and per type.
    max_meanings: most clusters of a neuron's exemplars that are tried. min_meaning_share: least
    share of the exemplars in a cluster, which also has `min_exemplars`. min_agreement: least mean
    adjusted Rand index between clusters from both halves of the exemplars. max_relation: largest
    cosine of the centers of two clusters that count as two meanings. splits: random halves. seed:
    of their draw.
    """

    strong_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    min_exemplars: AtLeastOne = 5
    min_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    min_lift: Annotated[float, Ge(1)] = 2.0
    top_words: AtLeastOne = 10
    max_meanings: AtLeastOne = 4
    min_meaning_share: Share = 0.2
    min_agreement: Annotated[float, Interval(ge=0, le=1)] = 0.8
    max_relation: Annotated[float, Interval(ge=0, le=1)] = 0.3
    splits: AtLeastOne = 4
    seed: int = 0
