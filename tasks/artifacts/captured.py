"""Tables of the `capture` stage: exemplars, activation statistics and traces of every neuron."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, ROLES, SAMPLE_ID, TRACE, TableSpec, column
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS


def exemplars_spec(top_n: int) -> TableSpec:
    """Return the spec of the `exemplars` table: `top_n` slots per neuron, strongest first."""
    return TableSpec(
        "exemplars",
        pa.schema(
            [
                *NEURON,
                column("sample_id", pa.list_(pa.int32(), top_n), "-1 if the slot is empty"),
                column(
                    "peak",
                    pa.list_(pa.float32(), top_n),
                    "highest activation over the tokens of capture.peak_roles; NaN if empty",
                    "activation",
                ),
                column("peak_role", pa.list_(pa.int8(), top_n), "0 visual, 1 text, -1 empty"),
                column(
                    "peak_token",
                    pa.list_(pa.int32(), top_n),
                    "index of the peak within the tokens of its role; -1 if empty",
                ),
            ]
        ),
        key=("layer", "neuron"),
    )


MOMENTS = TableSpec(
    "moments",
    pa.schema(
        [
            *NEURON,
            *(
                column(f"{statistic}_{role}", kind, f"{meaning}, over {role} tokens", unit)
                for role in ROLES
                for statistic, kind, meaning, unit in (
                    ("n", pa.int64(), "number of finite activations", "tokens"),
                    ("mean", pa.float64(), "mean activation", "activation"),
                    ("m2", pa.float64(), "sum of squared deviations", "activation^2"),
                    ("max", pa.float32(), "highest activation; NaN without tokens", "activation"),
                    ("positive", pa.float64(), "share of activations above 0", ""),
                    ("nonfinite", pa.int64(), "activations not counted: infinite or NaN", "tokens"),
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
            *NEURON,
            *(
                column(
                    role,
                    pa.list_(pa.int32(), BLOCKS * BINS),
                    f"{role} tokens by block of samples and bin of activation, block-major "
                    "(see tasks/artifacts/histogram.py)",
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
            *NEURON,
            column("rank", pa.int16(), "rank among the neuron's exemplars, from 0"),
            SAMPLE_ID,
            *TRACE,
        ]
    ),
    key=("layer", "neuron", "rank"),
)

RANDOM_TRACES = TableSpec(
    "random_traces",
    TRACES.schema.remove(TRACES.schema.get_field_index("rank")),
    key=("layer", "neuron", "sample_id"),
)
"""Traces of samples drawn at random, the same samples for every neuron. They show a neuron's
activation on samples that were not selected for it."""
