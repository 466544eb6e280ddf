"""Tables of the `explain` stages: explanations of neurons, and of single meanings of neurons."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, OUTCOME, TableSpec, column

EXPLANATION_STATUSES = (
    "ok",
    "no_evidence",
    "refused",
    "malformed",
    "truncated",
    "filtered",
    "rate_limited",
    "timed_out",
    "budget",
    "failed",
)

TRANSIENT_STATUSES = ("rate_limited", "timed_out", "budget", "failed")
"""Failures that may not happen again."""

EXPLANATIONS = TableSpec(
    "explanations",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "name of the explainer"),
            column("type", pa.string(), "the neuron's type"),
            column("text", pa.string(), "the explanation; empty unless ok"),
            column("evidence_for", pa.string(), "supporting evidence, by the explainer"),
            column("evidence_against", pa.string(), "contrary evidence, by the explainer"),
            column("confidence", pa.float32(), "self-reported, 0 to 1; null if not reported"),
            *OUTCOME,
            column("model", pa.string(), "model that answered; empty if none"),
            column("prompt_hash", pa.string(), "hash of the prompt template; empty if none"),
            column(
                "omitted",
                pa.string(),
                "request fields left out because the model's server refuses them, such as "
                "response_format; empty if none",
            ),
            column("exemplar_ids", pa.list_(pa.int32()), "sample_ids that the explainer saw"),
            column("calibration_ids", pa.list_(pa.int32()), "sample_ids held out for calibration"),
            column("scorer_ids", pa.list_(pa.int32()), "sample_ids held out for the scorer"),
            column("attempts", pa.int32(), "requests sent"),
            column("tokens_in", pa.int64(), "prompt tokens", "tokens"),
            column("tokens_out", pa.int64(), "answer tokens", "tokens"),
            column("cost", pa.float64(), "price of all attempts; null without a price", "USD"),
            column("seconds", pa.float32(), "from the first request to the result", "s"),
        ]
    ),
    key=("layer", "neuron", "explainer"),
    statuses=EXPLANATION_STATUSES,
)

MEANING_EXPLANATIONS = TableSpec(
    "meaning_explanations",
    pa.schema(
        [
            *EXPLANATIONS.schema,
            column("meaning", pa.int8(), "the meaning that is explained, as in `meanings`"),
            column("n_exemplars", pa.int16(), "strong exemplars of the meaning", "samples"),
        ]
    ),
    key=(*EXPLANATIONS.key, "meaning"),
    statuses=EXPLANATION_STATUSES,
)
"""Explanations of each meaning of the neurons that have several; `explanations` has those of whole
neurons."""
