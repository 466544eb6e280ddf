"""What explanations predict, and how well."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, OUTCOME, SAMPLE_ID, TableSpec, column

SIMULATION_STATUSES = (
    "ok",
    "no_explanation",
    "no_samples",
    "no_control",
    "refused",
    "malformed",
    "truncated",
    "filtered",
    "rate_limited",
    "timed_out",
    "budget",
    "failed",
)
CLAIMS = ("own", "other", "empty")
TOKENS = ("all", "visual", "text")
"""Which of a sample's tokens a score is over."""
SCORE_STATUSES = (
    "ok",
    "no_explanation",
    "no_control",
    "no_variance",
    "not_predicted",
    "too_few_samples",
    "too_few_tokens",
)

SIMULATIONS = TableSpec(
    "simulations",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "who wrote the explanation"),
            column("simulator", pa.string(), "who predicted"),
            column(
                "claim",
                pa.string(),
                "own: this neuron's explanation; other: the control's; empty: no words at all",
            ),
            column("claim_layer", pa.int16(), "layer of the neuron whose explanation it is; -1"),
            column("claim_neuron", pa.int32(), "that neuron's index; -1 if there is none"),
            SAMPLE_ID,
            column("draw", pa.string(), "exemplar or random: why the sample is here"),
            column("purpose", pa.string(), "scorer, or calibration (the own claim only)"),
            *(
                column(
                    role,
                    pa.large_list(pa.float16()),
                    f"predicted at each {role} token, in any unit; null where the simulator says "
                    "nothing of such tokens",
                )
                for role in ("visual", "text")
            ),
            column(
                "detected",
                pa.float32(),
                "the simulator's own answer to how much the sample as a whole excites the neuron, "
                "in any unit; null where it gives none",
            ),
            column("estimator", pa.string(), "how predictions were read off the simulator"),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "claim", "sample_id"),
    statuses=SIMULATION_STATUSES,
)

SCORES = TableSpec(
    "scores",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "who wrote the explanation"),
            column("simulator", pa.string(), "who predicted"),
            column(
                "tokens",
                pa.string(),
                "all, visual or text: the tokens that the row is over; "
                "all are those that the simulator predicts",
            ),
            column("type", pa.string(), "the neuron's type"),
            column("correlation", pa.float32(), "signed Pearson over the tokens; null if none"),
            column("ci_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            column("ci_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            column("control_other", pa.float32(), "the same for another neuron's explanation"),
            column("control_empty", pa.float32(), "the same for an explanation without words"),
            column(
                "control_blind",
                pa.float32(),
                "the same for a prediction made without explanation or simulator: the neuron's "
                "mean activation by place in the image, and by frequency of the text token",
            ),
            column("margin", pa.float32(), "correlation - the highest of the controls and 0"),
            column("margin_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            column("margin_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            column("p", pa.float64(), "chance of such a margin for a shuffled explanation"),
            column("q", pa.float64(), "the false discovery rate if it and all better are called"),
            column("spearman", pa.float32(), "rank correlation over the tokens"),
            column("auroc", pa.float32(), "of the active tokens against the others"),
            column(
                "explained_variance",
                pa.float32(),
                "about the mean, of predictions calibrated on other samples; 1 at most",
            ),
            column(
                "explained_variance_uncentred",
                pa.float32(),
                "the same about 0, as Bills et al. (2023) report it",
            ),
            column("detection_auc", pa.float32(), "exemplars against random samples"),
            column("detection_auc_other", pa.float32(), "the same for another's explanation"),
            column(
                "balanced_accuracy",
                pa.float32(),
                "of telling exemplars by a threshold found on the calibration samples",
            ),
            column("n_samples", pa.int32(), "samples scored", "samples"),
            column("n_exemplars", pa.int32(), "exemplars among them", "samples"),
            column("n_tokens", pa.int64(), "tokens scored", "tokens"),
            column("n_active", pa.int64(), "active tokens among them", "tokens"),
            column("n_calibration", pa.int32(), "samples calibrated on", "samples"),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "tokens"),
    statuses=SCORE_STATUSES,
)

SCORE_AGGREGATES = TableSpec(
    "score_aggregates",
    pa.schema(
        [
            column("explainer", pa.string(), "who wrote the explanations"),
            column("simulator", pa.string(), "who predicted"),
            column("tokens", pa.string(), "all, visual or text"),
            column("by", pa.string(), "all, type or layer: what the neurons are gathered by"),
            column("group", pa.string(), "which type or layer; empty for all"),
            column("measure", pa.string(), "a column of `scores`, or beats_control"),
            column("n", pa.int64(), "neurons for which it is defined", "neurons"),
            column("undefined", pa.int64(), "neurons for which it is not", "neurons"),
            column("mean", pa.float64(), "over the neurons; null where there is none"),
            column("ci_low", pa.float64(), "2.5 % bootstrap bound of the mean, over neurons"),
            column("ci_high", pa.float64(), "97.5 % bootstrap bound of the mean, over neurons"),
            column("median", pa.float64(), "over the neurons"),
            column("level", pa.float64(), "the q up to which beats_control is counted"),
        ]
    ),
    key=("explainer", "simulator", "tokens", "by", "group", "measure"),
)
