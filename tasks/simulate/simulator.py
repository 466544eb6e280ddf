"""What a simulator is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Prediction:
    """A predicted trace in any unit (scores are correlations), for one sample; `status` is one of
    the `simulations` table's.

    visual: float32 [n_visual], in the order of the sample's regions. text: float32 [n_text]. Either
    is None where the simulator has nothing to say of such tokens, which is no prediction of 0.
    detected: how much the sample as a whole excites the neuron, where that is judged apart.
    """

    visual: np.ndarray | None
    text: np.ndarray | None
    estimator: str = ""
    status: str = "ok"
    reason: str = ""
    detected: float | None = None


NOTHING = Prediction(np.empty(0, np.float32), np.empty(0, np.float32))
"""What is predicted where there is nothing to predict, or where it failed."""


@dataclass(frozen=True)
class Question:
    """What a neuron of which only `explanation` is known does at every token of a sample.

    An explanation without words is a control: what is said of such a sample anyway.
    """

    explanation: str
    sample_id: int


class Simulator(Protocol):
    """Predicts a trace from an explanation, seeing only the explanation and the sample.

    Implementations are frozen dataclasses of their settings; `name` is what their rows carry. One
    that calls a model says so by `asks_model = True`, and has `client` and `prices` as an explainer
    that does; `takes_batches = False` if its calls cannot go by batch; and, if it has to find out
    what its server can do, `agree(calls)` and `assume()`, each of which gives the simulator that
    knows."""

    name: str

    @property
    def wording(self) -> str:
        """Hash of the prompts; empty where a model is not asked. Another one simulates anew."""

    def check(self) -> None:
        """Raise `tasks.models.failures.Unusable` where no call could succeed, such as for want of a
        key: asked before hours of capture, which would be in vain."""

    def simulate(
        self, questions: Sequence[Question], catalog: Catalog, calls: Calls
    ) -> list[Prediction]:
        """A prediction for every question, in order: a failure is an outcome, not an exception.

        All questions about a part of the neurons come at once and none comes twice, so that a
        simulator may work on them in any order (such as image by image) and side by side. Where
        `calls` are written down instead of being sent, those that wait for an answer are of the
        status `pending`, which no table takes.

        Raises `tasks.models.failures.Unusable` where no call can succeed (wrong key or model).
        """


class ModelSimulator(Simulator, Protocol):
    """A simulator that runs a model of its own, which says so by `loads_model = True`.

    It is loaded once by each of the workers that keep it, not for every part of the neurons."""

    loads_model: ClassVar[bool]

    def weights(self) -> str:
        """What identifies the model's weights. Raises `tasks.models.pretrained.ModelError`."""

    def load(self, device: str, threads: int | None) -> Simulator:
        """The simulator with its model in memory. device: `cpu` or `cuda`. threads: on a CPU; None
        leaves them as they are. Raises `tasks.models.pretrained.ModelError`."""
