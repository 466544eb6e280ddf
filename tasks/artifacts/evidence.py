"""Tables of the stages `evidence` and `near_misses`: the samples of each neuron, with traces."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, SAMPLE_ID, TRACE, TableSpec, column

PURPOSES = ("explainer", "calibration", "scorer", "show")
"""Who uses a row. `show`: only pages and notebooks do, for a neuron that is not explained."""

STRATA = ("exemplar", "random", "near_miss")
"""How a row's sample was chosen."""

CHOSEN = TableSpec(
    "chosen",
    pa.schema(
        [
            *NEURON,
            SAMPLE_ID,
            column("rank", pa.int16(), "rank among exemplars, from 0; -1 if it is none"),
            column("purpose", pa.string(), "explainer, calibration, scorer or show"),
            column("stratum", pa.string(), "exemplar, random or near_miss"),
            column(
                "weight",
                pa.float64(),
                "samples of the dataset that the row stands for: 1 for an exemplar; for a random "
                "sample, the usable samples that are no exemplars over the neuron's random rows; "
                "for a near miss, all near misses over the drawn ones",
                "samples",
            ),
        ]
    ),
    key=("layer", "neuron", "sample_id", "purpose"),
)
"""Rows of `evidence` before their traces are known."""

EVIDENCE = TableSpec(
    "evidence",
    pa.schema([*CHOSEN.schema, *TRACE]),
    key=CHOSEN.key,
    format="arrow",
)
"""Sorted by purpose, neuron, stratum, rank and sample. So the rows of some neurons for one purpose
lie together. A neuron that was first only shown and later explained also keeps its `show` rows."""

_CLAIM = column("claim", pa.string(), "hash of the explanation's text")

NEAR_MISSES = replace(
    EVIDENCE,
    name="near_misses",
    schema=EVIDENCE.schema.append(_CLAIM),
    key=("layer", "neuron", "claim", "sample_id"),
)
"""Samples that a neuron's explanation predicts, and that are no exemplars, with purpose scorer."""

STRATUM_SIZES = TableSpec(
    "stratum_sizes",
    pa.schema(
        [
            *NEURON,
            column("explainer", pa.string(), "author of the explanation"),
            _CLAIM,
            column("exemplars", pa.int32(), "the neuron's exemplars", "samples"),
            column(
                "near_misses",
                pa.int32(),
                "samples that the explanation predicts and that are no exemplars; 0 if "
                "near_misses.samples is 0",
                "samples",
            ),
            column("rest", pa.int32(), "all other usable samples", "samples"),
            column("predicted", pa.int32(), "samples of the dataset that it predicts", "samples"),
            column(
                "predicted_ids",
                pa.list_(pa.int32()),
                "the scorer's exemplars and random samples that it predicts",
            ),
        ]
    ),
    key=("layer", "neuron", "explainer", "claim"),
)
"""How many samples of the dataset are in each stratum of a neuron and its explanation."""
