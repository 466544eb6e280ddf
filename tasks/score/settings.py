"""The settings of scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval


@dataclass(frozen=True)
class ScoreSettings:
    """How scores are computed.

    resamples: bootstrap draws of the intervals; seed: of those draws. min_samples, min_tokens:
    below so many held-out samples, or tokens of them, a score is undefined. active_visual,
    active_text: a visual or text token is active above this, where the neuron's maximum over the
    dataset is 10; these are the thresholds of Xu et al. for types. q: the false discovery rate at
    which neurons are said to beat their control.
    """

    resamples: Annotated[int, Ge(100)] = 1000
    seed: int = 0
    min_samples: Annotated[int, Ge(2)] = 4
    min_tokens: Annotated[int, Ge(2)] = 10
    active_visual: Annotated[float, Interval(ge=0, lt=10)] = 2.0
    active_text: Annotated[float, Interval(ge=0, lt=10)] = 3.0
    q: Annotated[float, Interval(gt=0, lt=1)] = 0.05
