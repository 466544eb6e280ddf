"""Settings of the score stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval


@dataclass(frozen=True)
class ScoreSettings:
    """Settings for computing scores.

    resamples: bootstrap draws for the intervals. seed: of those draws. min_samples, min_tokens:
    with fewer held-out samples, or fewer tokens in them, a score is undefined. t_visual,
    t_text: a visual or text token is active above this value, on a scale where the neuron's
    maximum over the dataset is 10; the defaults are the thresholds of Xu et al. for types. q: false
    discovery rate for "beats its controls".
    """

    resamples: Annotated[int, Ge(100)] = 1000
    seed: int = 0
    min_samples: Annotated[int, Ge(2)] = 4
    min_tokens: Annotated[int, Ge(2)] = 10
    t_visual: Annotated[float, Interval(ge=0, lt=10)] = 2.0
    t_text: Annotated[float, Interval(ge=0, lt=10)] = 3.0
    max_q: Annotated[float, Interval(gt=0, lt=1)] = 0.05
