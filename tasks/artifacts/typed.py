"""Tables of the `classify` stage: the type of every neuron, and the tests."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, TableSpec, column

TYPE_COLUMNS = {
    "visual": "share_visual",
    "text": "share_text",
    "multi-modal": "share_multimodal",
    "unknown": "share_unknown",
}
"""For each type, the column of `types` that holds its share of the exemplars."""
TYPES = tuple(TYPE_COLUMNS)
TESTED_TYPES = ("visual", "text", "multi-modal", "undecided", "silent")

NEURON_TYPES = TableSpec(
    "types",
    pa.schema(
        [
            *NEURON,
            *(
                column(share, pa.float32(), f"share of exemplars that are {name}")
                for name, share in TYPE_COLUMNS.items()
            ),
            column("type", pa.string(), "visual, text, multi-modal or unknown"),
            column("n_exemplars", pa.int16(), "exemplars counted"),
            column("scale", pa.float32(), "the activation that maps to 10", "activation"),
        ]
    ),
    key=("layer", "neuron"),
)

NEURON_TESTS = TableSpec(
    "tested_types",
    pa.schema(
        [
            *NEURON,
            column("threshold", pa.float32(), "lowest activation of a high token", "activation"),
            *(
                role_column
                for role in ("visual", "text")
                for role_column in (
                    column(f"high_{role}", pa.int64(), f"high {role} tokens", "tokens"),
                    column(
                        f"rate_{role}",
                        pa.float64(),
                        f"share of high {role} tokens; null if none exist",
                    ),
                )
            ),
            column("difference", pa.float64(), "rate_visual - rate_text"),
            *(
                column(f"{kind}_{name}", pa.float64(), f"{meaning}; null where not tested")
                for kind, statistic in (
                    ("p", "p-value"),
                    ("q", "Benjamini-Hochberg q over all neurons"),
                )
                for name, meaning in (
                    ("exact", f"{statistic} of the difference, all tokens exchangeable"),
                    ("block", f"{statistic} of the difference, by blocks of samples"),
                    ("both", f"{statistic} of activation by both roles, by blocks of samples"),
                    ("fires", f"{statistic} of noise, over the tokens of both roles"),
                    ("fires_visual", f"{statistic} of noise, over visual tokens"),
                    ("fires_text", f"{statistic} of noise, over text tokens"),
                )
            ),
            column("type_tested", pa.string(), "one of TESTED_TYPES"),
        ]
    ),
    key=("layer", "neuron"),
)
"""Test results per neuron; written only if classify.rule is `tested` (see
tasks/classify/tested.py). The table `types` holds the paper's types."""
