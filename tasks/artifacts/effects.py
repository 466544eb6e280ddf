"""Tables of the `effects` and `faithfulness` stages: what neurons do to the subject's output."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import (
    NEURON,
    OUTCOME,
    ROLES,
    SAMPLE_ID,
    TableSpec,
    column,
)

CAUSAL_TYPES = ("visual", "text", "multi-modal", "template", "none")
EFFECT_STATUSES = ("ok", "too_few_samples", "nonfinite")
OUTPUT_STATUSES = ("ok", "never_active", "nonfinite")
FAITHFULNESS_STATUSES = (
    "ok",
    "not_ablated",
    "no_explanation",
    "no_words",
    "too_few_samples",
    "nonfinite",
)
ABLATIONS_OF = ("zero", "mean")
"""What an ablation sets a neuron's activation to."""
NATS = "nats per description token"


def _interval(name: str, meaning: str) -> list[pa.Field]:
    return [
        column(name, pa.float32(), f"{meaning}, as a mean over samples", NATS),
        column(f"{name}_low", pa.float32(), "2.5 % bound, over samples, corrected for skewness"),
        column(f"{name}_high", pa.float32(), "97.5 % bound, likewise"),
    ]


_ZEROED = "change of the description's loss when the neuron is zeroed, to first order"

EFFECTS = TableSpec(
    "effects",
    pa.schema(
        [
            *NEURON,
            *_interval("effect", _ZEROED),
            column("p", pa.float64(), "two-sided p-value of no effect, over samples"),
            column("q", pa.float64(), "Benjamini-Hochberg q of `p` over all neurons"),
            *(
                field
                for role in ROLES
                for field in _interval(
                    f"effect_{role}", f"the part of `effect` through {role} tokens"
                )
            ),
            *_interval("mean_effect", f"{_ZEROED}, but set to its mean activation"),
            *(
                column(
                    f"mean_effect_{role}",
                    pa.float32(),
                    f"the part of `mean_effect` through {role} tokens",
                    NATS,
                )
                for role in ROLES
            ),
            *(
                column(
                    f"magnitude_{role}",
                    pa.float32(),
                    f"mean over samples of the absolute effect through {role} tokens",
                    NATS,
                )
                for role in ROLES
            ),
            *(
                column(
                    f"q_{role}",
                    pa.float64(),
                    f"q of no effect through {role} tokens, over all neurons and roles",
                )
                for role in ROLES
            ),
            column(
                "causal_type",
                pa.string(),
                "the role through which the neuron acts: visual, text or template, with "
                "effects.min_share of the magnitude; multi-modal if no role has as much; none if "
                "no such effect differs from 0 at effects.max_q",
            ),
            column("mean_activation", pa.float32(), "its mean over visual and text tokens"),
            column("n_samples", pa.int32(), "samples of the attribution", "samples"),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron"),
    statuses=EFFECT_STATUSES,
)

OUTPUT_TOKENS = TableSpec(
    "output_tokens",
    pa.schema(
        [
            *NEURON,
            column(
                "write",
                pa.float32(),
                "what one unit of activation multiplies the output column by: the mean of the up "
                "projection at the strong tokens for `gate`, 1 for `gate_up`; null if unknown",
            ),
            column(
                "n_strong",
                pa.int64(),
                "strong tokens in the samples; if 0, `write` is the mean over all tokens, weighted "
                "by the positive activations",
                "tokens",
            ),
            column("promoted", pa.list_(pa.string()), "tokens it promotes most, strongest first"),
            column(
                "promoted_logits",
                pa.list_(pa.float32()),
                "logit of each per unit of activation, before the final norm divides by the length "
                "of the residual stream, minus the mean over the vocabulary",
            ),
            column("suppressed", pa.list_(pa.string()), "tokens it suppresses most"),
            column("suppressed_logits", pa.list_(pa.float32()), "likewise for each"),
            column(
                "sharpness",
                pa.float32(),
                "highest promoted logit in standard deviations over the vocabulary",
            ),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron"),
    statuses=OUTPUT_STATUSES,
)

ABLATIONS = TableSpec(
    "ablations",
    pa.schema(
        [
            *NEURON,
            column("set_to", pa.string(), "zero or mean: what the activation is set to"),
            SAMPLE_ID,
            column("change", pa.float32(), "exact change of the description's loss", NATS),
            column("first_order", pa.float32(), "the attribution's value on this sample", NATS),
            column(
                "token_changes",
                pa.list_(pa.float32()),
                "change of the loss of each text token",
                "nats",
            ),
        ]
    ),
    key=("layer", "neuron", "set_to", "sample_id"),
)

FAITHFULNESS = TableSpec(
    "faithfulness",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "author of the explanation"),
            column("words", pa.list_(pa.string()), "words of the explanation, casefolded"),
            column(
                "words_from",
                pa.string(),
                "explanation, or promoted: the neuron's promoted tokens, if no word of the "
                "explanation is in the texts; empty without words",
            ),
            column("own_change", pa.float32(), "change of the loss of these words", "nats"),
            column(
                "other_change",
                pa.float32(),
                "of other words of the same samples that are about as frequent",
                "nats",
            ),
            column(
                "faithfulness",
                pa.float32(),
                "own_change - other_change when the neuron is zeroed, mean over samples",
                "nats",
            ),
            column("p", pa.float64(), "one-sided p-value, paired over samples by sign flips"),
            column("q", pa.float64(), "Benjamini-Hochberg q of `p` over the explainer's neurons"),
            column("n_samples", pa.int32(), "samples that hold the words", "samples"),
            column(
                "agreement",
                pa.float32(),
                "AUROC of the explanation's words among all words of the texts, ranked by the "
                "logit that the neuron gives them; 0.5 is chance",
            ),
            column(
                "agreement_other",
                pa.float32(),
                "the mean of the same over other neurons' explanations, as a control",
            ),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer"),
    statuses=FAITHFULNESS_STATUSES,
)

MEASURES = (
    *(f"zero_{role}" for role in ROLES),
    "zero",
    *(f"mean_{role}" for role in ROLES),
    "mean",
)
"""Rows of the sums of `attribution`: the effects by role and in total, zeroed and at the mean."""
UP_SUMS = ("strong_up", "strong", "weighted_up", "weight")

ATTRIBUTION = TableSpec(
    "attribution",
    pa.schema(
        [
            *NEURON,
            column("n_samples", pa.int32(), "samples of the shard", "samples"),
            column(
                "powers",
                pa.list_(pa.float64(), len(MEASURES) * 3),
                "sums over samples of each measure, its square and its cube, measure by measure",
            ),
            column(
                "magnitudes",
                pa.list_(pa.float64(), len(ROLES)),
                "sums of the absolute zero effects",
            ),
            column(
                "up",
                pa.list_(pa.float64(), len(UP_SUMS)),
                "over visual and text tokens: the up projection at strong tokens, their number, "
                "the up projection weighted by positive activations, their sum",
            ),
        ]
    ),
    key=("layer", "neuron"),
    format="arrow",
    compression="lz4",
    dictionary=False,
)
"""Sums of one shard; internal to the `effects` stage."""
