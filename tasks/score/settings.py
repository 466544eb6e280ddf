"""The settings of scoring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreSettings:
    """How scores are computed.

    resamples: bootstrap draws of the intervals; seed: of those draws. min_samples, min_tokens:
    below so many held-out samples, or tokens of them, a score is undefined. active_visual,
    active_text: a visual or text token is active above this, where the neuron's maximum over the
    dataset is 10; these are the thresholds of Xu et al. for types. q: the false discovery rate at
    which neurons are said to beat their control.
    """

    resamples: int = 1000
    seed: int = 0
    min_samples: int = 4
    min_tokens: int = 10
    active_visual: float = 2.0
    active_text: float = 3.0
    q: float = 0.05

    def __post_init__(self) -> None:
        for name, least in (("resamples", 100), ("min_samples", 2), ("min_tokens", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}")
        for name in ("active_visual", "active_text"):
            if not 0 <= getattr(self, name) < 10:
                raise ValueError(f"{name}: must be from 0 to less than 10")
        if not 0 < self.q < 1:
            raise ValueError("q: must be between 0 and 1")
