"""Settings of the `evidence` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from neuron_atlas.tasks.settings import AtLeastOne, not_hashed


@dataclass(frozen=True)
class EvidenceSettings:
    """Which samples become evidence of a neuron.

    exemplars: exemplars per neuron, strongest first; None for all that capture stored.
    random_samples: number of samples drawn at random with `seed`, the same for every neuron.
    traces: `chosen` stores the traces of explained neurons, and of a few exemplars of the other
    neurons for the report; `all` stores the traces of all exemplars of every neuron.
    """

    exemplars: AtLeastOne | None = None
    random_samples: Annotated[int, Ge(0)] = 32
    seed: int = 0
    traces: Literal["chosen", "all"] = not_hashed("chosen")
