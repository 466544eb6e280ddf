"""Tables of the `groups` and `steering` stages: what groups of neurons do."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, SAMPLE_ID, TableSpec, column

INTERVENTION_STATUSES = ("ok", "overflow")
"""overflow: the subject's output is not a finite number with this change."""
SAYING_STATUSES = (*INTERVENTION_STATUSES, "silent")
"""silent: the neuron is never active enough to have a percentile."""
EFFECT_STATUSES = ("ok", "broken", "overflow", "undefined")
"""broken: the perplexity rose above groups.max_perplexity_ratio. undefined: no sample has such
words."""
VERDICTS = ("double", "single", "none", "broken", "undefined")
"""double: each group matters more than the other one for its own measure. single: only the
contrast of both differs from 0."""
PICTURES = ("neutral", "sample")

_GROUP = [
    column("group", pa.string(), "the type or the name of the group; empty for the intact subject"),
    column("share", pa.float64(), "share of a layer's neurons that were asked for; 0 if named"),
    column("first_layer", pa.int16(), "first layer of the range"),
    column("last_layer", pa.int16(), "last layer of the range"),
]
_SET = [
    *_GROUP,
    column("draw", pa.int16(), "number of the matched random set; -1 for the group itself"),
]
_CHANGED = [
    *_SET,
    column("alpha", pa.float64(), "factor of the activations: 0 ablates, 1 changes nothing"),
]

GROUP_SAMPLES = TableSpec(
    "group_samples",
    pa.schema(
        [
            SAMPLE_ID,
            column(
                "use",
                pa.string(),
                "measured; set_aside: it shares an image with a measured sample, and neither "
                "decides a type",
            ),
            column("half", pa.string(), "half of steering: choose or report; empty if set aside"),
            column("described", pa.bool_(), "whether the subject describes it under each change"),
            column("kind", pa.list_(pa.string()), "kind of each thing in the image, if known"),
            column("name", pa.list_(pa.string()), "name of each thing in the image, if known"),
        ]
    ),
    key=("sample_id",),
)

GROUP_MEMBERS = TableSpec(
    "group_members",
    pa.schema(
        [
            *NEURON,
            column("type", pa.string(), "type without the measured samples"),
            column("share", pa.float32(), "share of its exemplars that have this type"),
            column(
                "norm",
                pa.float32(),
                "root mean square activation over visual and text tokens",
                "activation",
            ),
            column("mean", pa.float32(), "mean activation over all tokens", "activation"),
        ]
    ),
    key=("layer", "neuron"),
)

GROUP_SETS = TableSpec(
    "group_sets",
    pa.schema(
        [
            *_SET,
            NEURON[0],
            column("neurons", pa.list_(pa.int32()), "indices within the layer's FFN, ascending"),
            column(
                "norm",
                pa.float32(),
                "mean over the neurons of the root mean square activation",
                "activation",
            ),
            column("overlap", pa.float32(), "share of the neurons that are in the group itself"),
        ]
    ),
    key=("group", "share", "first_layer", "last_layer", "draw", "layer"),
)

GROUP_LOSSES = TableSpec(
    "group_losses",
    pa.schema(
        [
            *_CHANGED,
            SAMPLE_ID,
            *(
                of_words
                for name, meaning in (
                    ("visual", "visual words, where the text first names them, with the image"),
                    ("function", "function words, with the image"),
                    ("other", "all text that names nothing visual, with the image"),
                    ("alone", "all text, without the image"),
                )
                for of_words in (
                    column(f"{name}_loss", pa.float64(), f"summed loss of {meaning}", "nats"),
                    column(f"{name}_tokens", pa.int32(), f"number of these tokens: {meaning}"),
                )
            ),
            column("status", pa.string(), "one of the table's statuses"),
        ]
    ),
    key=("group", "share", "first_layer", "last_layer", "draw", "alpha", "sample_id"),
    statuses=INTERVENTION_STATUSES,
)

GROUP_SPEECH = TableSpec(
    "group_speech",
    pa.schema(
        [
            *_CHANGED,
            SAMPLE_ID,
            column("text", pa.string(), "the description that the subject generates"),
            column("n_words", pa.int32(), "length of the description", "words"),
            column(
                "kind",
                pa.list_(pa.string()),
                "kinds of things, such as color or object; `says NAME` for the words of a group",
            ),
            *(
                column(name, pa.list_(pa.int16()), f"for each kind, {meaning}")
                for name, meaning in (
                    ("named", "things that the description names"),
                    ("right", "of these, things that are in the image"),
                    ("present", "things that are in the image"),
                )
            ),
            column("asked", pa.int16(), "yes/no questions asked; 0 if it cannot answer them"),
            column("answered", pa.int16(), "of these, answers that begin with yes or no"),
            column("yes", pa.int16(), "answers that begin with yes"),
            column("correct", pa.int16(), "correct answers"),
            column("status", pa.string(), "one of the table's statuses"),
        ]
    ),
    key=("group", "share", "first_layer", "last_layer", "draw", "alpha", "sample_id"),
    statuses=INTERVENTION_STATUSES,
)

GROUP_EFFECTS = TableSpec(
    "group_effects",
    pa.schema(
        [
            *_GROUP,
            column("alpha", pa.float64(), "factor of the activations: 0 ablates"),
            column("half", pa.string(), "samples: all; of steering, choose or report"),
            column("measure", pa.string(), "what is measured; see docs/groups.md"),
            column("n_neurons", pa.int32(), "neurons of the group", "neurons"),
            column("n_samples", pa.int32(), "samples measured", "samples"),
            column("intact", pa.float64(), "the measure of the intact subject"),
            column("changed", pa.float64(), "the measure with the group changed"),
            column("effect", pa.float64(), "changed - intact"),
            column("ci_low", pa.float64(), "2.5 % bootstrap bound of the effect, over samples"),
            column("ci_high", pa.float64(), "97.5 % bootstrap bound of the effect, over samples"),
            column("random_mean", pa.float64(), "mean effect of the matched random sets"),
            column("band_low", pa.float64(), "lowest effect of a matched random set"),
            column("band_high", pa.float64(), "highest effect of a matched random set"),
            column(
                "band_level",
                pa.float32(),
                "chance that one more random set falls in the band: 1 - 2 / (sets + 1)",
            ),
            column("n_random", pa.int16(), "matched random sets"),
            column("p_random", pa.float64(), "two-sided rank p-value among the random sets"),
            column(
                "norm_ratio",
                pa.float32(),
                "mean activation norm of the random sets over that of the group",
            ),
            column("overlap", pa.float32(), "mean share of the random sets inside the group"),
            column(
                "perplexity_ratio",
                pa.float64(),
                "perplexity of the text that names nothing visual, changed over intact",
            ),
            column("chosen", pa.bool_(), "whether steering chose this alpha on the other half"),
            column("status", pa.string(), "one of the table's statuses"),
        ]
    ),
    key=("group", "share", "first_layer", "last_layer", "alpha", "half", "measure"),
    statuses=EFFECT_STATUSES,
)

DISSOCIATIONS = TableSpec(
    "dissociations",
    pa.schema(
        [
            column("group", pa.string(), "first group"),
            column("other", pa.string(), "second group"),
            *_GROUP[1:],
            column("measure", pa.string(), "the first group's measure"),
            column("other_measure", pa.string(), "the second group's measure"),
            *(
                column(name, pa.float64(), f"effect of ablating the {group} group on {measure}")
                for name, group, measure in (
                    ("own", "first", "its own measure"),
                    ("own_on_other", "first", "the other measure"),
                    ("other_on_own", "second", "the first group's measure"),
                    ("other_own", "second", "its own measure"),
                )
            ),
            column(
                "contrast",
                pa.float64(),
                "(own - own_on_other) - (other_on_own - other_own): above 0 if each group matters "
                "for its own measure",
                "nats",
            ),
            column("ci_low", pa.float64(), "2.5 % bootstrap bound of the contrast, over samples"),
            column("ci_high", pa.float64(), "97.5 % bootstrap bound of the contrast"),
            column("p", pa.float64(), "p-value of the contrast, paired over blocks of samples"),
            column("p_random", pa.float64(), "p-value of the contrast among random sets"),
            column(
                "own_low",
                pa.float64(),
                "2.5 % bound of own - other_on_own: the first group matters more for its measure",
            ),
            column(
                "other_low",
                pa.float64(),
                "2.5 % bound of other_own - own_on_other: the second group matters more for its "
                "measure",
            ),
            column("n_samples", pa.int32(), "samples measured", "samples"),
            column("verdict", pa.string(), "double, single, none, broken or undefined"),
        ]
    ),
    key=("group", "other", "share", "first_layer", "last_layer", "measure", "other_measure"),
)

STEERING_LOSSES = replace(GROUP_LOSSES, name="steering_losses")
STEERING_SPEECH = replace(GROUP_SPEECH, name="steering_speech")
STEERING_EFFECTS = replace(GROUP_EFFECTS, name="steering_effects")

SAYINGS = TableSpec(
    "sayings",
    pa.schema(
        [
            *NEURON,
            column("value", pa.float32(), "activation at which it is clamped", "activation"),
            column("sample_id", pa.int32(), "the sample whose image is described"),
            *(
                of_picture
                for picture, meaning in (
                    ("neutral", "of a gray image"),
                    ("sample", "of the sample's image"),
                )
                for of_picture in (
                    column(f"{picture}_without", pa.string(), f"the intact description {meaning}"),
                    column(
                        f"{picture}_with", pa.string(), f"description {meaning} with it clamped"
                    ),
                    column(
                        f"{picture}_added", pa.list_(pa.string()), f"words that it adds, {meaning}"
                    ),
                    column(
                        f"{picture}_lost",
                        pa.list_(pa.string()),
                        f"words that it removes, {meaning}",
                    ),
                )
            ),
            column("status", pa.string(), "one of the table's statuses"),
        ]
    ),
    key=("layer", "neuron"),
    statuses=SAYING_STATUSES,
)
