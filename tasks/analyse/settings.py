"""The settings of the analysis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnalyseSettings:
    """strong: share of a neuron's maximum from which a token counts as strong.

    min_exemplars: strong exemplars of a role without which it names nothing. min_share: share of
    a role's exemplars that must have a word in common. min_lift: how many times the share of all
    texts that have it that must be, for a word to be seen in images. favourites: words kept of
    each neuron and of each type.
    """

    strong: float = 0.5
    min_exemplars: int = 5
    min_share: float = 0.5
    min_lift: float = 2.0
    favourites: int = 10

    def __post_init__(self) -> None:
        for name in ("strong", "min_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: must be above 0, and at most 1")
        if self.min_lift < 1:
            raise ValueError("min_lift: must be at least 1")
        for name in ("min_exemplars", "favourites"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
