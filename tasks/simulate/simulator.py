"""What a simulator is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Prediction:
    """A predicted trace in any unit (scores are correlations), for one sample.

    visual: float32 [n_visual], in the order of the sample's regions. text: float32 [n_text].
    """

    visual: np.ndarray
    text: np.ndarray
    estimator: str = ""
    status: str = "ok"
    reason: str = ""


class Simulator(Protocol):
    """Predicts a trace from an explanation, seeing only the explanation and the sample.

    Implementations are frozen dataclasses of their settings; `name` is what their rows carry."""

    name: str

    def simulate(
        self, explanation: str, sample_ids: Sequence[int], catalog: Catalog
    ) -> list[Prediction]:
        """A prediction for every sample, in order: a failure is an outcome, not an exception."""
