"""Tables of the `search` stage: where each neuron's exemplars are in the subject's embeddings."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import NEURON, TableSpec, column

_ROLE = column("role", pa.string(), "visual or text: the tokens whose embeddings are compared")

_PLACE = column("place", pa.int64(), "sample_id, role and token as one number (see tasks/search)")

PEAK_PLACES = TableSpec("peak_places", pa.schema([_PLACE]), key=("place",), format="arrow")
"""Distinct peaks of a layer's exemplars, ascending; removed when the stage is complete."""

PEAK_EMBEDDINGS = TableSpec(
    "peak_embeddings",
    pa.schema(
        [_PLACE, column("embedding", pa.list_(pa.float32()), "the subject's embedding there")]
    ),
    key=("place",),
    format="arrow",
)
"""Embeddings of peaks, ascending by place; removed when the stage is complete."""

SEARCH_CENTERS = TableSpec(
    "search_centers",
    pa.schema(
        [
            _ROLE,
            column("n", pa.int64(), "embedded peaks of this role", "tokens"),
            column(
                "center",
                pa.list_(pa.float32()),
                "mean embedding of these peaks, which is subtracted before any cosine",
            ),
        ]
    ),
    key=("role",),
)

SEARCH_VECTORS = TableSpec(
    "search_vectors",
    pa.schema(
        [
            *NEURON,
            _ROLE,
            column("n", pa.int16(), "exemplars of the neuron that peak in this role"),
            column(
                "vector",
                pa.list_(pa.float16()),
                "mean direction of the subject's embeddings at these peaks, centered; its "
                "length is 1 if all peaks have the same embedding",
            ),
            column(
                "clarity",
                pa.float32(),
                "mean cosine of two of these embeddings (SemanticLens); null for one exemplar",
            ),
        ]
    ),
    key=("layer", "neuron", "role"),
    dictionary=False,
)
"""A neuron has a row for each role in which one of its exemplars peaks."""

NEIGHBORS = TableSpec(
    "neighbors",
    pa.schema(
        [
            *NEURON,
            _ROLE,
            column("layers", pa.list_(pa.int16()), "layers of the nearest neurons, nearest first"),
            column("neurons", pa.list_(pa.int32()), "their indices in these layers"),
            column("cosines", pa.list_(pa.float32()), "cosine of the two vectors"),
            column(
                "redundancy",
                pa.float32(),
                "cosine of the nearest neuron (SemanticLens); null without another neuron",
            ),
        ]
    ),
    key=("layer", "neuron", "role"),
)
