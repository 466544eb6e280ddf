"""Settings of the `effects` and `faithfulness` stages, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from neuron_atlas.tasks.settings import AtLeastOne, Share, not_hashed

Count = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class EffectsSettings:
    """What the run measures of the neurons' effects.

    run: whether these stages run at all. samples: samples of the attribution. output_tokens: tokens
    promoted and suppressed that are stored per neuron. strong_share: share of a neuron's highest
    activation from which a token is strong. max_q: false discovery rate of effects that differ from
    0. min_share: share of a neuron's effect from which one role of tokens names its causal type.
    ablations, ablation_samples: neurons that are ablated exactly, and samples for each.
    faithful_neurons, faithful_samples: explanations per explainer that are tested by ablation, and
    samples for each. seed: of all draws. batch_size: rows of a forward pass.
    """

    run: bool = not_hashed(True)
    samples: AtLeastOne = 256
    output_tokens: AtLeastOne = 10
    strong_share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    max_q: Share = 0.05
    min_share: Annotated[float, Interval(gt=0.5, le=1)] = 0.75
    ablations: Count = 48
    ablation_samples: AtLeastOne = 16
    faithful_neurons: Count = 48
    faithful_samples: AtLeastOne = 16
    seed: int = 0
    batch_size: AtLeastOne = not_hashed(16)
