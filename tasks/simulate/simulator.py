"""The simulator protocol, and a simulator's prediction for one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Prediction:
    """A predicted trace for one sample, in any unit (scores are correlations), with a status of the
    `simulations` table.

    visual: float32 [n_visual], in the order of the sample's regions. text: float32 [n_text]. Either
    is None if the simulator predicts no such tokens; that is not a prediction of 0.
    detected: how strongly the sample as a whole activates the neuron; None if it is not rated.
    omitted: request fields that the model's server refuses.
    """

    visual: np.ndarray | None
    text: np.ndarray | None
    estimator: str = ""
    status: str = "ok"
    reason: str = ""
    detected: float | None = None
    omitted: str = ""


NO_PREDICTION = Prediction(np.empty(0, np.float32), np.empty(0, np.float32))
"""The prediction for a sample without tokens, and for a failure."""


@dataclass(frozen=True)
class SimulationRequest:
    """Predict the trace of a neuron with this explanation on one sample.

    An empty explanation is a control: the prediction for any neuron.
    """

    explanation: str
    sample_id: int


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a simulator's server, as found by a probe.

    estimator: how predictions are computed from answers, as named in the rows. details: plain JSON
    data for the simulator alone.
    """

    estimator: str
    details: Mapping[str, Any]


class Simulator(Protocol):
    """Protocol of simulators, which predict a trace from an explanation and a sample alone.

    Implementations are frozen dataclasses of their settings, and subclasses of this class.
    """

    name: str
    """Stored in its rows, so that several simulators can be compared."""
    client: ClientSettings | None = None
    """How to call its model; None if it calls no model."""
    prices: Mapping[str, Price] = MappingProxyType({})
    """Prices by model name, for simulators that call one."""
    takes_batches: ClassVar[bool] = True
    """Whether its calls may go through the batch API."""
    compares_levels: ClassVar[bool] = False
    """Whether explanations are also simulated one level broader and narrower, as controls. For
    simulators that read the words and concepts of an explanation, at no cost."""
    loads_model: ClassVar[bool] = False
    """Whether it runs its own model. Each worker then loads the model once, for all its parts."""

    @property
    def prompt_hash(self) -> str:
        """Hash of the prompts; a changed hash reruns simulate. Empty if it calls no model."""
        return ""

    def check(self) -> None:
        """Raise ProviderError if no call can succeed, such as without a key. Runs before any
        stage."""
        return None

    def weights(self) -> str:
        """Return the hash or commit of its own model's weights; empty if it has no model.

        Raises `tasks.models.pretrained.ModelError`.
        """
        return ""

    def load(self, device: str = "cpu", threads: int | None = None) -> Simulator:
        """Return the simulator with its own model in memory.

        device: `cpu` or `cuda`. threads: on a CPU; None leaves them unchanged. Raises
        `tasks.models.pretrained.ModelError`.
        """
        return self

    def probe(self, calls: CallOptions) -> Capabilities | None:
        """Probe its server's capabilities, once for all parts. Raises ProviderError.

        None if there is nothing to probe, or if the server cannot answer now; each part then probes
        again.
        """
        return None

    def assumed_capabilities(self) -> Capabilities | None:
        """Return the capabilities that a dry run assumes, because it sends no requests."""
        return None

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """Return the prediction for each request, in order. A failure is a Prediction with that
        status.

        requests: all requests of a part, without duplicates. A simulator may process them in any
        order (such as image by image) and concurrently. capabilities: result of `probe`. If `calls`
        collects API calls for a batch, an unanswered request has status `pending`, and the table is
        not written. Raises ProviderError if no call can succeed (wrong key, unknown model), and
        `tasks.models.pretrained.ModelError` if its own model cannot run.
        """
