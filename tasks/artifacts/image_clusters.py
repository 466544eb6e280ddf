"""Tables of the `image_clusters` stage: groups of similar patches, for sources without concepts."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import SAMPLE_ID, TableSpec, column
from neuron_atlas.tasks.artifacts.samples import ROW_GROUP_OF_SAMPLES

_CLUSTER = column("cluster", pa.int16(), "number of the cluster, from 0")

IMAGE_CLUSTER_CENTERS = TableSpec(
    "image_cluster_centers",
    pa.schema(
        [
            _CLUSTER,
            column(
                "center",
                pa.list_(pa.float32()),
                "mean of the cluster's patches, as embeddings of length 1",
            ),
        ]
    ),
    key=("cluster",),
)

IMAGE_CLUSTERS = TableSpec(
    "image_clusters",
    pa.schema(
        [
            SAMPLE_ID,
            column(
                "clusters",
                pa.list_(pa.int16()),
                "cluster of each visual token, in the order of the sample's regions (descriptions)",
            ),
        ]
    ),
    key=("sample_id",),
    row_group=ROW_GROUP_OF_SAMPLES,
)
"""A sample without visual tokens has no row."""

IMAGE_CLUSTER_NAMES = TableSpec(
    "image_cluster_names",
    pa.schema(
        [
            _CLUSTER,
            column("name", pa.string(), "its words and its number, as explanations quote it"),
            column(
                "words", pa.list_(pa.string()), "most characteristic words of its samples' texts"
            ),
            column("n_samples", pa.int32(), "samples whose image has it", "samples"),
            column("share", pa.float32(), "share of all visual tokens"),
        ]
    ),
    key=("cluster",),
)
