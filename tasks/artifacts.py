"""Every table that one stage writes and another reads: its columns, units, key and statuses.

This module is the vocabulary of the program. A stage never hands data to another stage in any
other way, so whoever knows these schemas can replace a stage, or read an atlas without the code.

Units: activations are in the subject's own activation units; lengths are in tokens; image
measures are in pixels of the original image; money is in US dollars, time in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.histogram import BINS, BLOCKS

_ROW_GROUP = 16_384
"""Rows that are read together: a few hundred neurons' traces, so that a few neurons' rows can be
read without the rest of their layer."""

ROLES = ("visual", "text", "template")
TYPES = ("visual", "text", "multi-modal", "unknown")
TESTED_TYPES = ("visual", "text", "multi-modal", "undecided", "silent")
CONCEPT_GRID = 24
"""Rows and columns of a concept's coverage mask, laid over the whole image."""

NO_SAMPLE = -1
"""The sample_id of an empty exemplar slot (a dataset with fewer samples than N)."""

SAMPLE_STATUSES = (
    "ok",
    "missing",
    "unreadable",
    "oversized",
    "outside",
    "empty_text",
    "duplicate_id",
)
DESCRIPTION_STATUSES = ("ok", "truncated", "empty_text")
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
SIMULATION_STATUSES = (
    "ok",
    "no_explanation",
    "no_samples",
    "no_control",
    "malformed",
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
    "too_few_samples",
    "too_few_tokens",
)


@dataclass(frozen=True)
class TableSpec:
    """One artifact: its columns, the columns that identify a row, its closed set of statuses."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    statuses: tuple[str, ...] = ()


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


_SAMPLE_ID = _column("sample_id", pa.int32(), "position of the sample in the dataset's own order")
_NEURON = [
    _column("layer", pa.int16(), "decoder layer, from 0"),
    _column("neuron", pa.int32(), "index within the layer's FFN, from 0"),
]
_OUTCOME = [
    _column("status", pa.string(), "one of the table's closed set"),
    _column("reason", pa.string(), "what went wrong, empty when ok"),
]
_TRACE = [
    _column(
        "visual",
        pa.list_(pa.float16()),
        "activation at each visual token, in the order of the sample's regions (descriptions)",
        "activation",
    ),
    _column("text", pa.list_(pa.float16()), "activation at each text token", "activation"),
]
_REGION = pa.struct(
    [
        _column("image", pa.int8(), "which of the sample's images, from 0"),
        _column("rows", pa.int16(), "of the grid; its tokens run row by row", "tokens"),
        _column("columns", pa.int16(), "of the grid", "tokens"),
        *(
            _column(edge, pa.float32(), "edge of what the grid covers; may leave the image", "px")
            for edge in ("left", "top", "right", "bottom")
        ),
    ]
)
"""A grid of visual tokens over a box of an image; see tasks/regions.py."""

SAMPLES = TableSpec(
    "samples",
    pa.schema(
        [
            _SAMPLE_ID,
            _column("source_id", pa.string(), "the dataset's own id"),
            _column("images", pa.list_(pa.string()), "references that the source can open"),
            _column(
                "image_sha256",
                pa.string(),
                "of the image as stored, or of the hashes of several; empty if unread or none",
            ),
            _column("width", pa.int32(), "of the first upright image", "px"),
            _column("height", pa.int32(), "of the first upright image", "px"),
            _column("text", pa.string(), "the dataset's own text"),
            *_OUTCOME,
        ]
    ),
    key=("sample_id",),
    statuses=SAMPLE_STATUSES,
)

CONCEPTS = TableSpec(
    "concepts",
    pa.schema(
        [
            _SAMPLE_ID,
            _column("concept", pa.string(), "name of the concept"),
            _column("kind", pa.string(), "color, shape, size, position, background ..."),
            _column("words", pa.list_(pa.string()), "the words that name it in a text"),
            _column(
                "mask",
                pa.list_(pa.uint8(), CONCEPT_GRID**2),
                "coverage of each cell of a 24 x 24 grid over the image, row-major",
                "1/255",
            ),
        ]
    ),
    key=("sample_id", "concept"),
)

DESCRIPTIONS = TableSpec(
    "descriptions",
    pa.schema(
        [
            _SAMPLE_ID,
            _column("text", pa.string(), "the text that is teacher-forced after the question"),
            _column("text_source", pa.string(), "generated by the subject, or given"),
            _column("tokens", pa.list_(pa.string()), "the text, cut at its token boundaries"),
            _column("n_visual", pa.int32(), "visual tokens", "tokens"),
            _column("n_text", pa.int32(), "text tokens", "tokens"),
            _column(
                "regions",
                pa.list_(_REGION),
                "the grids of visual tokens over the images, in the order of the tokens",
            ),
            *_OUTCOME,
        ]
    ),
    key=("sample_id",),
    statuses=DESCRIPTION_STATUSES,
)


def exemplars(top_n: int) -> TableSpec:
    """The `exemplars` table for `top_n` slots a neuron, strongest first."""
    return TableSpec(
        "exemplars",
        pa.schema(
            [
                *_NEURON,
                _column("sample_id", pa.list_(pa.int32(), top_n), "-1 where a slot is empty"),
                _column(
                    "peak",
                    pa.list_(pa.float32(), top_n),
                    "highest activation over visual and text tokens; NaN where empty",
                    "activation",
                ),
                _column("peak_role", pa.list_(pa.int8(), top_n), "0 visual, 1 text, -1 empty"),
                _column(
                    "peak_token",
                    pa.list_(pa.int32(), top_n),
                    "index of the peak within the tokens of its role; -1 where empty",
                ),
            ]
        ),
        key=("layer", "neuron"),
    )


MOMENTS = TableSpec(
    "moments",
    pa.schema(
        [
            *_NEURON,
            *(
                _column(f"{statistic}_{role}", kind, f"{meaning}, over {role} tokens", unit)
                for role in ROLES
                for statistic, kind, meaning, unit in (
                    ("n", pa.int64(), "number of finite activations", "tokens"),
                    ("mean", pa.float64(), "mean activation", "activation"),
                    ("m2", pa.float64(), "sum of squared deviations", "activation^2"),
                    ("max", pa.float32(), "highest activation; NaN without tokens", "activation"),
                    ("positive", pa.float64(), "share of activations above 0", ""),
                    ("nonfinite", pa.int64(), "activations left out: infinite or NaN", "tokens"),
                )
            ),
        ]
    ),
    key=("layer", "neuron"),
)

HISTOGRAMS = TableSpec(
    "histograms",
    pa.schema(
        [
            *_NEURON,
            *(
                _column(
                    role,
                    pa.list_(pa.int32(), BLOCKS * BINS),
                    f"{role} tokens by block of samples and bin of activation, block-major "
                    "(see tasks/histogram.py)",
                    "tokens",
                )
                for role in ("visual", "text")
            ),
        ]
    ),
    key=("layer", "neuron"),
)

TRACES = TableSpec(
    "traces",
    pa.schema(
        [
            *_NEURON,
            _column("rank", pa.int16(), "place among the neuron's exemplars, from 0"),
            _SAMPLE_ID,
            *_TRACE,
        ]
    ),
    key=("layer", "neuron", "rank"),
)

RANDOM_TRACES = TableSpec(
    "random_traces",
    TRACES.schema.remove(TRACES.schema.get_field_index("rank")),
    key=("layer", "neuron", "sample_id"),
)
"""The same for samples drawn at random, the same ones for every neuron: what a neuron does when
nothing was chosen to excite it."""

NEURON_TYPES = TableSpec(
    "types",
    pa.schema(
        [
            *_NEURON,
            *(
                _column(f"p_{name}", pa.float32(), f"share of exemplars that are {name}")
                for name in ("visual", "text", "multimodal", "unknown")
            ),
            _column("type", pa.string(), "visual, text, multi-modal or unknown"),
            _column("n_exemplars", pa.int16(), "exemplars that were counted"),
            _column("scale", pa.float32(), "the activation that is normalised to 10", "activation"),
        ]
    ),
    key=("layer", "neuron"),
)

NEURON_TESTS = TableSpec(
    "tested_types",
    pa.schema(
        [
            *_NEURON,
            _column(
                "threshold", pa.float32(), "the activation from which a token is high", "activation"
            ),
            *(
                column
                for role in ("visual", "text")
                for column in (
                    _column(f"high_{role}", pa.int64(), f"{role} tokens that are high", "tokens"),
                    _column(
                        f"rate_{role}", pa.float64(), f"their share; null without {role} tokens"
                    ),
                )
            ),
            _column("difference", pa.float64(), "rate_visual - rate_text"),
            *(
                _column(f"{kind}_{name}", pa.float64(), f"{meaning}; null where not tested")
                for kind, what in (("p", "p-value"), ("q", "Benjamini-Hochberg q over all neurons"))
                for name, meaning in (
                    ("exact", f"{what} of the difference, every token exchangeable"),
                    ("block", f"{what} of the difference, by blocks of samples"),
                    ("both", f"{what} of both roles exciting the neuron, by blocks of samples"),
                )
            ),
            _column("type_tested", pa.string(), "one of the tested rule's types"),
        ]
    ),
    key=("layer", "neuron"),
)
"""What tests say of the neurons that `types` types by the paper's rule; only where the run's rule
tests (see tasks/classify/tested.py)."""

EXPLANATIONS = TableSpec(
    "explanations",
    pa.schema(
        [
            *_NEURON,
            _column("explainer", pa.string(), "who wrote it"),
            _column("type", pa.string(), "the neuron's type"),
            _column("text", pa.string(), "the explanation, empty unless ok"),
            _column("evidence_for", pa.string(), "what speaks for it, as the explainer says"),
            _column("evidence_against", pa.string(), "what speaks against it, empty if nothing"),
            _column("confidence", pa.float32(), "how sure it says it is, 0 to 1; null if unsaid"),
            *_OUTCOME,
            _column("model", pa.string(), "model that was asked, empty where none was"),
            _column("prompt_hash", pa.string(), "of the prompt's wording, empty where none"),
            _column("exemplar_ids", pa.list_(pa.int32()), "sample_ids that the explainer saw"),
            _column("calibration_ids", pa.list_(pa.int32()), "sample_ids kept for calibration"),
            _column("scorer_ids", pa.list_(pa.int32()), "sample_ids kept for the scorer"),
            _column("attempts", pa.int32(), "requests sent"),
            _column("tokens_in", pa.int64(), "prompt tokens", "tokens"),
            _column("tokens_out", pa.int64(), "answer tokens", "tokens"),
            _column("cost", pa.float64(), "price of all attempts; null if unpriced", "USD"),
            _column("seconds", pa.float32(), "from asking to outcome", "s"),
        ]
    ),
    key=("layer", "neuron", "explainer"),
    statuses=EXPLANATION_STATUSES,
)

SIMULATIONS = TableSpec(
    "simulations",
    pa.schema(
        [
            *_NEURON,
            _column("explainer", pa.string(), "who wrote the explanation"),
            _column("simulator", pa.string(), "who predicted"),
            _column(
                "claim",
                pa.string(),
                "own: this neuron's explanation; other: the control's; empty: no words at all",
            ),
            _column("claim_layer", pa.int16(), "layer of the neuron whose explanation it is; -1"),
            _column("claim_neuron", pa.int32(), "that neuron's index; -1 if there is none"),
            _SAMPLE_ID,
            _column("draw", pa.string(), "exemplar or random: why the sample is here"),
            _column("purpose", pa.string(), "scorer, or calibration (the own claim only)"),
            *_TRACE,
            _column(
                "detected",
                pa.float32(),
                "the simulator's own answer to how much the sample as a whole excites the neuron, "
                "in any unit; null where it gives none",
            ),
            _column("estimator", pa.string(), "how predictions were read off the simulator"),
            *_OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "claim", "sample_id"),
    statuses=SIMULATION_STATUSES,
)

SCORES = TableSpec(
    "scores",
    pa.schema(
        [
            *_NEURON,
            _column("explainer", pa.string(), "who wrote the explanation"),
            _column("simulator", pa.string(), "who predicted"),
            _column("tokens", pa.string(), "all, visual or text: the tokens that the row is over"),
            _column("type", pa.string(), "the neuron's type"),
            _column("correlation", pa.float32(), "signed Pearson over the tokens; null if none"),
            _column("ci_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            _column("ci_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            _column("control_other", pa.float32(), "the same for another neuron's explanation"),
            _column("control_empty", pa.float32(), "the same for an explanation without words"),
            _column(
                "control_blind",
                pa.float32(),
                "the same for a prediction made without explanation or simulator: the neuron's "
                "mean activation by place in the image, and by frequency of the text token",
            ),
            _column("margin", pa.float32(), "correlation - the highest of the controls"),
            _column("margin_low", pa.float32(), "2.5 % bootstrap bound, over samples"),
            _column("margin_high", pa.float32(), "97.5 % bootstrap bound, over samples"),
            _column("p", pa.float64(), "chance of such a margin for a shuffled explanation"),
            _column("q", pa.float64(), "the false discovery rate if it and all better are called"),
            _column("spearman", pa.float32(), "rank correlation over the tokens"),
            _column("auroc", pa.float32(), "of the active tokens against the others"),
            _column(
                "explained_variance",
                pa.float32(),
                "about the mean, of predictions calibrated on other samples; 1 at most",
            ),
            _column(
                "explained_variance_uncentred",
                pa.float32(),
                "the same about 0, as Bills et al. (2023) report it",
            ),
            _column("detection_auc", pa.float32(), "exemplars against random samples"),
            _column("detection_auc_other", pa.float32(), "the same for another's explanation"),
            _column(
                "balanced_accuracy",
                pa.float32(),
                "of telling exemplars by a threshold found on the calibration samples",
            ),
            _column("n_samples", pa.int32(), "samples scored", "samples"),
            _column("n_exemplars", pa.int32(), "exemplars among them", "samples"),
            _column("n_tokens", pa.int64(), "tokens scored", "tokens"),
            _column("n_active", pa.int64(), "active tokens among them", "tokens"),
            _column("n_calibration", pa.int32(), "samples calibrated on", "samples"),
            *_OUTCOME,
        ]
    ),
    key=("layer", "neuron", "explainer", "simulator", "tokens"),
    statuses=SCORE_STATUSES,
)

SCORE_AGGREGATES = TableSpec(
    "score_aggregates",
    pa.schema(
        [
            _column("explainer", pa.string(), "who wrote the explanations"),
            _column("simulator", pa.string(), "who predicted"),
            _column("tokens", pa.string(), "all, visual or text"),
            _column("by", pa.string(), "all, type or layer: what the neurons are gathered by"),
            _column("group", pa.string(), "which type or layer; empty for all"),
            _column("measure", pa.string(), "a column of `scores`, or beats_control"),
            _column("n", pa.int64(), "neurons for which it is defined", "neurons"),
            _column("undefined", pa.int64(), "neurons for which it is not", "neurons"),
            _column("mean", pa.float64(), "over the neurons; null where there is none"),
            _column("ci_low", pa.float64(), "2.5 % bootstrap bound of the mean, over neurons"),
            _column("ci_high", pa.float64(), "97.5 % bootstrap bound of the mean, over neurons"),
            _column("median", pa.float64(), "over the neurons"),
            _column("level", pa.float64(), "the q up to which beats_control is counted"),
        ]
    ),
    key=("explainer", "simulator", "tokens", "by", "group", "measure"),
)

WORDS = TableSpec(
    "words",
    pa.schema(
        [
            _SAMPLE_ID,
            _column(
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
            *_NEURON,
            _column("active_visual", pa.float64(), "share of visual tokens above 0; null if none"),
            _column("active_text", pa.float64(), "share of text tokens above 0; null if none"),
            _column(
                "concentration",
                pa.float64(),
                "0 if an image excites the neuron evenly, 1 if at a single token: mean over the "
                "exemplars with a strong visual token; null without one",
            ),
            _column("n_visual", pa.int16(), "strong exemplars that peak at a visual token"),
            _column("n_text", pa.int16(), "strong exemplars that peak at a text token"),
            _column("favourites", pa.list_(pa.string()), "words at which those peak, most first"),
            _column("favourite_shares", pa.list_(pa.float64()), "share of them at each word"),
            _column(
                "seen_words",
                pa.list_(pa.string()),
                "words that the texts of the visual exemplars have more often than others do",
            ),
            _column(
                "same_concept",
                pa.bool_(),
                "whether one word is both most texts' favourite and seen; null where a role has "
                "too few exemplars",
            ),
        ]
    ),
    key=("layer", "neuron"),
)

_TYPED = [
    _column("rule", pa.string(), "paper or tested: who typed the neurons"),
    _column("type", pa.string(), "the neurons' type"),
]
_INTERVAL = [
    _column("share", pa.float64(), "n / of"),
    _column("low", pa.float64(), "lower 95 % bound (Wilson)"),
    _column("high", pa.float64(), "upper 95 % bound (Wilson)"),
]
ALL_LAYERS = -1

TYPE_SHARES = TableSpec(
    "type_shares",
    pa.schema(
        [
            _TYPED[0],
            _column("layer", pa.int16(), "decoder layer, from 0; -1 for all together"),
            _TYPED[1],
            _column("n", pa.int64(), "neurons of this type", "neurons"),
            _column("of", pa.int64(), "neurons of this layer", "neurons"),
            *_INTERVAL,
        ]
    ),
    key=("rule", "layer", "type"),
)

TYPE_AGREEMENT = TableSpec(
    "type_agreement",
    pa.schema(
        [
            _column("type", pa.string(), "by the paper's rule"),
            _column("type_tested", pa.string(), "by tests"),
            _column("n", pa.int64(), "neurons", "neurons"),
        ]
    ),
    key=("type", "type_tested"),
)
"""Empty where the run's rule does not test."""

TYPE_KAPPA = TableSpec(
    "type_kappa",
    pa.schema(
        [
            _column("rule", pa.string(), "the rule that is compared with the paper's"),
            _column("n", pa.int64(), "neurons that both typed", "neurons"),
            _column("agreed", pa.float64(), "share of them on which both agree"),
            _column("by_chance", pa.float64(), "the share expected of the two rules by chance"),
            _column("kappa", pa.float64(), "Cohen's; null where chance alone agrees on all"),
            _column("low", pa.float64(), "lower 95 % bound of kappa"),
            _column("high", pa.float64(), "upper 95 % bound of kappa"),
        ]
    ),
    key=("rule",),
)
"""How far the two agree, undecided and silent counting as unknown; empty where only one typed."""

TYPE_RESPONSES = TableSpec(
    "type_responses",
    pa.schema(
        [
            *_TYPED,
            _column("measure", pa.string(), "active_visual, active_text or concentration"),
            _column("n", pa.int64(), "neurons where it is known", "neurons"),
            _column("mean", pa.float64(), "mean over them"),
            *(
                _column(f"p{percent}", pa.float64(), f"{percent} % quantile")
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
            *_TYPED,
            _column("n", pa.int64(), "neurons with the same concept in image and text", "neurons"),
            _column("of", pa.int64(), "neurons where both are known", "neurons"),
            *_INTERVAL,
        ]
    ),
    key=("rule", "type"),
)

TYPE_FAVOURITES = TableSpec(
    "type_favourites",
    pa.schema(
        [
            *_TYPED,
            _column("word", pa.string(), "a word"),
            _column("n", pa.int64(), "neurons whose first favourite it is", "neurons"),
        ]
    ),
    key=("rule", "type", "word"),
)


def layer_file(artifact: str, layer: int) -> str:
    """The name of the file that holds one layer of an artifact."""
    return f"{artifact}-layer-{layer:03d}.parquet"


def write_table(table: pa.Table, spec: TableSpec, path: Path) -> None:
    """Write `table` as one Parquet file that is either whole or absent.

    Raises ValueError when the columns are not `spec`'s or a status is not of its closed set.
    """
    table = _conform(table, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, unfinished, compression="zstd", row_group_size=_ROW_GROUP)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_table(
    paths: Path | Sequence[Path], spec: TableSpec, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the files of one artifact, in the order given, as one table of `spec`'s columns."""
    paths = [paths] if isinstance(paths, Path) else list(paths)
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    if not paths:
        return schema.empty_table()
    return pa.concat_tables(
        pq.read_table(path, columns=names, partitioning=None).cast(schema) for path in paths
    )


def list_rows(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The rows of a list column as arrays that share one buffer."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    return [values[start:stop] for start, stop in pairwise(offsets)]


def _conform(table: pa.Table, spec: TableSpec) -> pa.Table:
    if set(table.column_names) != set(spec.schema.names):
        odd = sorted(set(table.column_names) ^ set(spec.schema.names))
        raise ValueError(f"table {spec.name}: columns missing or unknown: {', '.join(odd)}")
    table = table.select(spec.schema.names).cast(spec.schema)
    if spec.statuses and table.num_rows:
        allowed = pa.array(spec.statuses)
        strange = table.filter(pc.invert(pc.is_in(table["status"], value_set=allowed)))
        if strange.num_rows:
            raise ValueError(
                f"table {spec.name}: unknown status {strange['status'][0].as_py()!r}; "
                f"allowed: {', '.join(spec.statuses)}"
            )
    return table
