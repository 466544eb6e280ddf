"""Settings of the `near_misses` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge


@dataclass(frozen=True)
class NearMissSettings:
    """Settings of the near misses: samples that an explanation predicts and that are no exemplars.

    samples: near misses drawn per explanation; 0 draws none, and scores have two strata. seed: of
    the draw.
    """

    samples: Annotated[int, Ge(0)] = 8
    seed: int = 0
