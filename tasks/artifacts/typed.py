"""The type of every neuron, and the tests behind it."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, TableSpec, column

TYPE_COLUMNS = {
    "visual": "p_visual",
    "text": "p_text",
    "multi-modal": "p_multimodal",
    "unknown": "p_unknown",
}
"""The column of `types` with each type's share of the exemplars."""
TYPES = tuple(TYPE_COLUMNS)
TESTED_TYPES = ("visual", "text", "multi-modal", "undecided", "silent")

NEURON_TYPES = TableSpec(
    "types",
    pa.schema(
        [
            *NEURON,
            *(
                column(share, pa.float32(), f"share of exemplars that are {share[2:]}")
                for share in TYPE_COLUMNS.values()
            ),
            column("type", pa.string(), "visual, text, multi-modal or unknown"),
            column("n_exemplars", pa.int16(), "exemplars that were counted"),
            column("scale", pa.float32(), "the activation that is normalised to 10", "activation"),
        ]
    ),
    key=("layer", "neuron"),
)

NEURON_TESTS = TableSpec(
    "tested_types",
    pa.schema(
        [
            *NEURON,
            column(
                "threshold", pa.float32(), "the activation from which a token is high", "activation"
            ),
            *(
                made
                for role in ("visual", "text")
                for made in (
                    column(f"high_{role}", pa.int64(), f"{role} tokens that are high", "tokens"),
                    column(
                        f"rate_{role}", pa.float64(), f"their share; null without {role} tokens"
                    ),
                )
            ),
            column("difference", pa.float64(), "rate_visual - rate_text"),
            *(
                column(f"{kind}_{name}", pa.float64(), f"{meaning}; null where not tested")
                for kind, what in (("p", "p-value"), ("q", "Benjamini-Hochberg q over all neurons"))
                for name, meaning in (
                    ("exact", f"{what} of the difference, every token exchangeable"),
                    ("block", f"{what} of the difference, by blocks of samples"),
                    ("both", f"{what} of both roles exciting the neuron, by blocks of samples"),
                )
            ),
            column("type_tested", pa.string(), "one of the tested rule's types"),
        ]
    ),
    key=("layer", "neuron"),
)
"""What tests say of the neurons that `types` types by the paper's rule; only where the run's rule
tests (see tasks/classify/tested.py)."""
