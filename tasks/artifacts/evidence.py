"""Table of the `evidence` stage: the samples that explain and score each neuron, with traces."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, SAMPLE_ID, TRACE, TableSpec, column

PURPOSES = ("explainer", "calibration", "scorer", "show")
"""Who uses a row. `show`: only pages and notebooks do, for a neuron that is not explained."""

STRATA = ("exemplar", "random")
"""How a row's sample was chosen."""

CHOSEN = TableSpec(
    "chosen",
    pa.schema(
        [
            *NEURON,
            SAMPLE_ID,
            column("rank", pa.int16(), "rank among the neuron's exemplars, from 0; -1 if random"),
            column("purpose", pa.string(), "explainer, calibration, scorer or show"),
            column("stratum", pa.string(), "exemplar or random"),
            column(
                "weight",
                pa.float64(),
                "samples of the dataset that the row stands for: 1 for an exemplar; for a random "
                "sample, the usable samples that are no exemplars over the neuron's random rows",
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
