"""Tables of the `analyse` stage: responses of each neuron, and summaries by type."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, SAMPLE_ID, TableSpec, column

WORDS = TableSpec(
    "words",
    pa.schema(
        [
            SAMPLE_ID,
            column("n_visual", pa.int32(), "visual tokens of the sample", "tokens"),
            column(
                "words",
                pa.list_(pa.string()),
                "the casefolded word of each text token; the token itself if it is in no word, "
                "such as a full stop",
            ),
        ]
    ),
    key=("sample_id",),
)

RESPONSES = TableSpec(
    "responses",
    pa.schema(
        [
            *NEURON,
            column("positive_visual", pa.float64(), "share of visual tokens above 0; null if none"),
            column("positive_text", pa.float64(), "share of text tokens above 0; null if none"),
            column(
                "concentration",
                pa.float64(),
                "0 if the activation is even over the image, 1 if it is at a single token; mean "
                "over the exemplars with a strong visual token, null if there are none",
            ),
            column(
                "n_visual_exemplars", pa.int16(), "strong exemplars that peak at a visual token"
            ),
            column("n_text_exemplars", pa.int16(), "strong exemplars that peak at a text token"),
            column(
                "top_words",
                pa.list_(pa.string()),
                "words at which the text exemplars peak, most frequent first",
            ),
            column(
                "top_word_shares", pa.list_(pa.float64()), "share of text exemplars at each word"
            ),
            column(
                "image_words",
                pa.list_(pa.string()),
                "words that are far more frequent in the visual exemplars' texts than in all texts",
            ),
            column(
                "same_concept",
                pa.bool_(),
                "whether one word is both the top word and an image word; null if a role "
                "has too few exemplars",
            ),
            column(
                "monosemanticity",
                pa.float64(),
                "mean similarity of pairs of strong exemplars by the patches or the words at their "
                "peaks, weighted by activation (Pach et al. 2025): 1 if all are alike, 0 if they "
                "are no more alike than any samples; null if there are too few",
            ),
            column(
                "meanings",
                pa.int8(),
                "stable, unrelated clusters of the same exemplars, see `meanings`; 1 if there are "
                "not several, null if there are too few",
            ),
        ]
    ),
    key=("layer", "neuron"),
)

MEANINGS = TableSpec(
    "meanings",
    pa.schema(
        [
            *NEURON,
            SAMPLE_ID,
            column("meaning", pa.int8(), "cluster of the exemplar, from 1, the largest first"),
        ]
    ),
    key=("layer", "neuron", "sample_id"),
)
"""The strong exemplars of the neurons with several meanings."""

TYPED = [
    column("rule", pa.string(), "the rule that assigned the type: paper or tested"),
    column("type", pa.string(), "type of the neurons"),
]
INTERVAL = [
    column("share", pa.float64(), "n / total"),
    column("ci_low", pa.float64(), "lower 95 % bound (Wilson)"),
    column("ci_high", pa.float64(), "upper 95 % bound (Wilson)"),
]
ALL_LAYERS = -1

TYPE_SHARES = TableSpec(
    "type_shares",
    pa.schema(
        [
            TYPED[0],
            column("layer", pa.int16(), "decoder layer, from 0; -1 for all layers"),
            TYPED[1],
            column("n", pa.int64(), "neurons of this type", "neurons"),
            column("total", pa.int64(), "neurons of this layer", "neurons"),
            *INTERVAL,
        ]
    ),
    key=("rule", "layer", "type"),
)

TYPE_AGREEMENT = TableSpec(
    "type_agreement",
    pa.schema(
        [
            column("type", pa.string(), "type by the paper's rule"),
            column("type_tested", pa.string(), "type by the tested rule"),
            column("n", pa.int64(), "neurons", "neurons"),
        ]
    ),
    key=("type", "type_tested"),
)
"""Empty unless classify.rule is `tested`."""

TYPE_KAPPA = TableSpec(
    "type_kappa",
    pa.schema(
        [
            column("rule", pa.string(), "the rule compared with the paper's"),
            column("n", pa.int64(), "neurons typed by both rules", "neurons"),
            column("agreement", pa.float64(), "share on which both rules agree"),
            column("expected_agreement", pa.float64(), "share of agreement expected by chance"),
            column("kappa", pa.float64(), "Cohen's kappa; null if expected_agreement is 1"),
            column("ci_low", pa.float64(), "lower 95 % bound of kappa"),
            column("ci_high", pa.float64(), "upper 95 % bound of kappa"),
        ]
    ),
    key=("rule",),
)
"""Agreement of the two rules; undecided and silent count as unknown. Empty if only one rule ran."""

TYPE_RESPONSES = TableSpec(
    "type_responses",
    pa.schema(
        [
            *TYPED,
            column("measure", pa.string(), "positive_visual, positive_text or concentration"),
            column("n", pa.int64(), "neurons where the measure is defined", "neurons"),
            column("mean", pa.float64(), "mean over these neurons"),
            *(
                column(f"p{percent}", pa.float64(), f"{percent} % quantile")
                for percent in (5, 25, 50, 75, 95)
            ),
        ]
    ),
    key=("rule", "type", "measure"),
)

TYPE_CONCEPTS = TableSpec(
    "type_concepts",
    pa.schema(
        [
            *TYPED,
            column("n", pa.int64(), "neurons with the same concept in image and text", "neurons"),
            column("total", pa.int64(), "neurons where same_concept is not null", "neurons"),
            *INTERVAL,
        ]
    ),
    key=("rule", "type"),
)

TYPE_TOP_WORDS = TableSpec(
    "type_top_words",
    pa.schema(
        [
            *TYPED,
            column("word", pa.string(), "a word"),
            column("n", pa.int64(), "neurons whose first top word is this word", "neurons"),
        ]
    ),
    key=("rule", "type", "word"),
)

TYPE_SUMMARIES = (
    TYPE_SHARES,
    TYPE_AGREEMENT,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_CONCEPTS,
    TYPE_TOP_WORDS,
)
"""The tables that summarize all neurons of a type."""
