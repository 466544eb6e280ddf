"""What explainers say of neurons."""

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

EXPLANATIONS = TableSpec(
    "explanations",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "who wrote it"),
            column("type", pa.string(), "the neuron's type"),
            column("text", pa.string(), "the explanation, empty unless ok"),
            column("evidence_for", pa.string(), "what speaks for it, as the explainer says"),
            column("evidence_against", pa.string(), "what speaks against it, empty if nothing"),
            column("confidence", pa.float32(), "how sure it says it is, 0 to 1; null if unsaid"),
            *OUTCOME,
            column("model", pa.string(), "model that was asked, empty where none was"),
            column("prompt_hash", pa.string(), "of the prompt's wording, empty where none"),
            column("exemplar_ids", pa.list_(pa.int32()), "sample_ids that the explainer saw"),
            column("calibration_ids", pa.list_(pa.int32()), "sample_ids kept for calibration"),
            column("scorer_ids", pa.list_(pa.int32()), "sample_ids kept for the scorer"),
            column("attempts", pa.int32(), "requests sent"),
            column("tokens_in", pa.int64(), "prompt tokens", "tokens"),
            column("tokens_out", pa.int64(), "answer tokens", "tokens"),
            column("cost", pa.float64(), "price of all attempts; null if unpriced", "USD"),
            column("seconds", pa.float32(), "from asking to outcome", "s"),
        ]
    ),
    key=("layer", "neuron", "explainer"),
    statuses=EXPLANATION_STATUSES,
)
