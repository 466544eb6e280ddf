"""Tables of the `capture` stage: exemplars and activation statistics of every neuron."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, ROLES, TableSpec, column
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS


def exemplars_spec(top_n: int) -> TableSpec:
    """Return the spec of the `exemplars` table: `top_n` slots per neuron, strongest first.

    Infinite and NaN activations count nowhere.
    """
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
                *(
                    column(
                        f"{role}_top",
                        # Its length depends on capture.top_activations.
                        pa.list_(pa.float32()),
                        f"highest {role} activations of each slot, descending, slot by slot: "
                        "capture.top_activations per slot, padded with NaN",
                        "activation",
                    )
                    for role in ("visual", "text")
                ),
                column(
                    "text_peak_token",
                    pa.list_(pa.int32(), top_n),
                    "index of the first text token with the highest text activation; -1 if none",
                ),
                *(
                    column(
                        f"{role}_active",
                        pa.list_(pa.int32(), top_n),
                        f"{role} tokens with an activation above 0",
                        "tokens",
                    )
                    for role in ("visual", "text")
                ),
                column(
                    "visual_sum",
                    pa.list_(pa.float32(), top_n),
                    "sum of the visual activations above 0",
                    "activation",
                ),
                column(
                    "visual_sum_sq",
                    pa.list_(pa.float32(), top_n),
                    "sum of the squares of the visual activations above 0",
                    "activation^2",
                ),
            ]
        ),
        key=("layer", "neuron"),
        dictionary=False,
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
    dictionary=False,
)


def in_shard(spec: TableSpec) -> TableSpec:
    """Return the spec of one of these tables in a shard, which the merge reads once: Arrow files
    with light compression, which are much faster to write and read than Parquet."""
    return replace(spec, format="arrow", compression="lz4", batch_rows=2**16)


def slot_values(exemplars: pa.Table, name: str) -> np.ndarray:
    """Return a column of `exemplars` as an array: [neurons, top_n], and for `visual_top` and
    `text_top` [neurons, top_n, capture.top_activations]."""
    column = exemplars[name]
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(column.type):
        return values.reshape(len(exemplars), column.type.list_size)
    slots = slot_values(exemplars, "peak")
    return values.reshape(*slots.shape, len(values) // max(1, slots.size))
