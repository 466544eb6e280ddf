"""The settings of scoring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreSettings:
    """How scores are computed.

    resamples: bootstrap draws of the interval; seed: of those draws. min_samples: below this
    many held-out samples a score is `too_few_samples`.
    """

    resamples: int = 1000
    seed: int = 0
    min_samples: int = 4

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ValueError("resamples: must be at least 100")
        if self.min_samples < 2:
            raise ValueError("min_samples: must be at least 2")
