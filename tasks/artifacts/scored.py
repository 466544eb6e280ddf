"""Tables of simulated activations and of the scores of explanations."""

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
LEVELS = ("broader", "narrower")
"""Claims that an explanation one level up and one level down makes."""
TOKENS = ("all", "visual", "text")
"""Which tokens of a sample a score covers."""
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
            column("explainer", pa.string(), "author of the explanation"),
            column("simulator", pa.string(), "author of the prediction"),
            column(
                "explanation",
                pa.string(),
                "own: this neuron's explanation; other: another neuron's, as a control; empty: an "
                "explanation without words; broader, narrower: the own one a level up and down",
            ),
            column("explanation_layer", pa.int16(), "layer of the explained neuron; -1 if none"),
            column("explanation_neuron", pa.int32(), "index of the explained neuron; -1 if none"),
            column("wording", pa.string(), "words of the claims broader and narrower; else empty"),
            SAMPLE_ID,
            column(
                "stratum", pa.string(), "how the sample was drawn: exemplar, random or near_miss"
            ),
            column("purpose", pa.string(), "scorer, or calibration (claim `own` only)"),
            *(
                column(
                    role,
                    pa.large_list(pa.float16()),
                    f"prediction at each {role} token, in any unit; null if the simulator does not "
                    "predict such tokens",
                )
                for role in ("visual", "text")
            ),
            column(
                "sample_prediction",
                pa.float32(),
                "prediction of the activation on the whole sample, in any unit; null if the "
                "simulator gives none",
            ),
            column("estimator", pa.string(), "method of reading predictions from the simulator"),
            column(
                "omitted",
                pa.string(),
                "request fields left out because the model's server refuses them, such as "
                "response_format; empty if none",
            ),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "explanation", "sample_id"),
    statuses=SIMULATION_STATUSES,
)

SCORES = TableSpec(
    "scores",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "author of the explanation"),
            column("simulator", pa.string(), "author of the prediction"),
            column(
                "tokens",
                pa.string(),
                "the tokens scored: visual, text, or all that the simulator predicts",
            ),
            column("type", pa.string(), "the neuron's type"),
            column(
                "correlation",
                pa.float32(),
                "signed Pearson over the tokens, each sample weighted by the samples of the "
                "dataset that it stands for; null if undefined",
            ),
            column("ci_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            column("ci_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            column("control_other", pa.float32(), "correlation of another neuron's explanation"),
            column("control_empty", pa.float32(), "correlation of an explanation without words"),
            column(
                "control_blind",
                pa.float32(),
                "correlation of a prediction without explanation or simulator: the neuron's mean "
                "activation by position in the image, and by frequency of the text token",
            ),
            column("margin", pa.float32(), "correlation - max(controls, 0)"),
            column("margin_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            column("margin_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            column(
                "top_random_correlation",
                pa.float32(),
                "signed Pearson over as many exemplars as random samples, unweighted, as in Bills "
                "et al. (2023)",
            ),
            column(
                "purity",
                pa.float32(),
                "average precision of samples ranked by predicted peak, weighted likewise; "
                "positives have an active token",
            ),
            column(
                "random_purity",
                pa.float32(),
                "purity of a random ranking: the positives' share of the dataset",
            ),
            column(
                "recall",
                pa.float32(),
                "weighted share of the positives that the explanation predicts; only over all "
                "tokens",
            ),
            column(
                "p_paired",
                pa.float64(),
                "p-value of the margin, paired over samples: the largest over all controls and 0",
            ),
            column(
                "p_contest",
                pa.float64(),
                "p-value of the margin by shuffled explanations: how often another neuron's wins "
                "by as much",
            ),
            column("p", pa.float64(), "the larger of `p_paired` and `p_contest`"),
            column("q", pa.float64(), "Benjamini-Hochberg q of `p`"),
            *(
                field
                for level, words in zip(
                    LEVELS, ("up: it claims more", "down: it claims less"), strict=True
                )
                for field in (
                    column(
                        f"{level}_claim",
                        pa.string(),
                        f"the explanation one level {words}; null if there is none",
                    ),
                    column(
                        f"control_{level}",
                        pa.float32(),
                        f"correlation of `{level}_claim`, which is not a part of the margin",
                    ),
                    column(
                        f"p_{level}",
                        pa.float64(),
                        f"p-value of the correlation's excess over control_{level}, paired over "
                        "samples",
                    ),
                    column(f"q_{level}", pa.float64(), f"Benjamini-Hochberg q of `p_{level}`"),
                )
            ),
            column("spearman", pa.float32(), "rank correlation, over exemplars and random samples"),
            column("auroc", pa.float32(), "AUROC of active against inactive tokens"),
            column(
                "explained_variance",
                pa.float32(),
                "variance about the mean that is explained by predictions calibrated on other "
                "samples; at most 1",
            ),
            column(
                "explained_variance_uncentered",
                pa.float32(),
                "the same about 0, as in Bills et al. (2023)",
            ),
            column("detection_auroc", pa.float32(), "AUROC of exemplars against random samples"),
            column(
                "detection_auroc_other", pa.float32(), "the same for another neuron's explanation"
            ),
            column(
                "balanced_accuracy",
                pa.float32(),
                "of detecting exemplars with a threshold chosen on the calibration samples",
            ),
            column("n_samples", pa.int32(), "samples scored", "samples"),
            column("n_exemplars", pa.int32(), "exemplars among them", "samples"),
            column("n_near_misses", pa.int32(), "drawn near misses among them", "samples"),
            column("n_tokens", pa.int64(), "tokens scored", "tokens"),
            column(
                "n_active", pa.int64(), "active tokens of exemplars and random samples", "tokens"
            ),
            column("n_calibration", pa.int32(), "calibration samples", "samples"),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "tokens"),
    statuses=SCORE_STATUSES,
)

MEANING_SCORES = TableSpec(
    "meaning_scores",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "author of the explanation"),
            column("simulator", pa.string(), "author of the prediction"),
            column("meaning", pa.int8(), "the meaning that is scored, as in `meanings`"),
            column(
                "correlation",
                pa.float32(),
                "as in `scores` over all tokens, without samples of other meanings",
            ),
            column("ci_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            column("ci_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            column(
                "whole",
                pa.float32(),
                "correlation of the whole neuron's explanation on the same samples",
            ),
            column("gain", pa.float32(), "correlation - max(whole, 0)"),
            column("gain_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            column("gain_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            column("n_samples", pa.int32(), "samples scored", "samples"),
            column("n_exemplars", pa.int32(), "exemplars of this meaning among them", "samples"),
            *OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "meaning"),
    statuses=tuple(dict.fromkeys((*SCORE_STATUSES, *SIMULATION_STATUSES))),
)

SCORE_AGGREGATES = TableSpec(
    "score_aggregates",
    pa.schema(
        [
            column("explainer", pa.string(), "author of the explanations"),
            column("simulator", pa.string(), "author of the predictions"),
            column("tokens", pa.string(), "all, visual or text"),
            column("by", pa.string(), "how neurons are grouped: all, type or layer"),
            column("group", pa.string(), "the type or layer; empty for all"),
            column(
                "measure",
                pa.string(),
                "a column of `scores`, or beats_control, beats_broader, beats_narrower",
            ),
            column("n", pa.int64(), "neurons where the measure is defined", "neurons"),
            column("undefined", pa.int64(), "neurons where it is not", "neurons"),
            column("mean", pa.float64(), "mean over the neurons; null if n is 0"),
            column("ci_low", pa.float64(), "2.5 % bootstrap bound of the mean, over neurons"),
            column("ci_high", pa.float64(), "97.5 % bootstrap bound of the mean, over neurons"),
            column("median", pa.float64(), "median over the neurons; null if undefined"),
            column("max_q", pa.float64(), "largest q that counts as beats_control"),
        ]
    ),
    key=("explainer", "simulator", "tokens", "by", "group", "measure"),
)
