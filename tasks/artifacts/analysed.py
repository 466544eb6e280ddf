"""How neurons respond, alone and by type."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, SAMPLE_ID, TableSpec, column

WORDS = TableSpec(
    "words",
    pa.schema(
        [
            SAMPLE_ID,
            column(
                "words",
                pa.list_(pa.string()),
                "the word that each text token belongs to, casefolded; the token itself where it "
                "is of none, such as a full stop",
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
            column("active_visual", pa.float64(), "share of visual tokens above 0; null if none"),
            column("active_text", pa.float64(), "share of text tokens above 0; null if none"),
            column(
                "concentration",
                pa.float64(),
                "0 if an image excites the neuron evenly, 1 if at a single token: mean over the "
                "exemplars with a strong visual token; null without one",
            ),
            column("n_visual", pa.int16(), "strong exemplars that peak at a visual token"),
            column("n_text", pa.int16(), "strong exemplars that peak at a text token"),
            column("favourites", pa.list_(pa.string()), "words at which those peak, most first"),
            column("favourite_shares", pa.list_(pa.float64()), "share of them at each word"),
            column(
                "seen_words",
                pa.list_(pa.string()),
                "words that the texts of the visual exemplars have more often than others do",
            ),
            column(
                "same_concept",
                pa.bool_(),
                "whether one word is both most texts' favourite and seen; null where a role has "
                "too few exemplars",
            ),
        ]
    ),
    key=("layer", "neuron"),
)

TYPED = [
    column("rule", pa.string(), "paper or tested: who typed the neurons"),
    column("type", pa.string(), "the neurons' type"),
]
INTERVAL = [
    column("share", pa.float64(), "n / of"),
    column("low", pa.float64(), "lower 95 % bound (Wilson)"),
    column("high", pa.float64(), "upper 95 % bound (Wilson)"),
]
ALL_LAYERS = -1

TYPE_SHARES = TableSpec(
    "type_shares",
    pa.schema(
        [
            TYPED[0],
            column("layer", pa.int16(), "decoder layer, from 0; -1 for all together"),
            TYPED[1],
            column("n", pa.int64(), "neurons of this type", "neurons"),
            column("of", pa.int64(), "neurons of this layer", "neurons"),
            *INTERVAL,
        ]
    ),
    key=("rule", "layer", "type"),
)

TYPE_AGREEMENT = TableSpec(
    "type_agreement",
    pa.schema(
        [
            column("type", pa.string(), "by the paper's rule"),
            column("type_tested", pa.string(), "by tests"),
            column("n", pa.int64(), "neurons", "neurons"),
        ]
    ),
    key=("type", "type_tested"),
)
"""Empty where the run's rule does not test."""

TYPE_KAPPA = TableSpec(
    "type_kappa",
    pa.schema(
        [
            column("rule", pa.string(), "the rule that is compared with the paper's"),
            column("n", pa.int64(), "neurons that both typed", "neurons"),
            column("agreed", pa.float64(), "share of them on which both agree"),
            column("by_chance", pa.float64(), "the share expected of the two rules by chance"),
            column("kappa", pa.float64(), "Cohen's; null where chance alone agrees on all"),
            column("low", pa.float64(), "lower 95 % bound of kappa"),
            column("high", pa.float64(), "upper 95 % bound of kappa"),
        ]
    ),
    key=("rule",),
)
"""How far the two agree, undecided and silent counting as unknown; empty where only one typed."""

TYPE_RESPONSES = TableSpec(
    "type_responses",
    pa.schema(
        [
            *TYPED,
            column("measure", pa.string(), "active_visual, active_text or concentration"),
            column("n", pa.int64(), "neurons where it is known", "neurons"),
            column("mean", pa.float64(), "mean over them"),
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
            column("of", pa.int64(), "neurons where both are known", "neurons"),
            *INTERVAL,
        ]
    ),
    key=("rule", "type"),
)

TYPE_FAVOURITES = TableSpec(
    "type_favourites",
    pa.schema(
        [
            *TYPED,
            column("word", pa.string(), "a word"),
            column("n", pa.int64(), "neurons whose first favourite it is", "neurons"),
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
    TYPE_FAVOURITES,
)
"""The tables that sum up all neurons of a type."""
