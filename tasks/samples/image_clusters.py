"""Read which patches of an image are in which cluster of similar patches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuron_atlas.tasks.artifacts import (
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    list_rows,
    read_table,
)


@dataclass(frozen=True)
class ImageClusterFiles:
    """Files of `image_clusters` and of `image_cluster_names`; none in a run without clusters."""

    clusters: Sequence[Path] = ()
    names: Sequence[Path] = ()


def read_image_clusters(
    files: ImageClusterFiles, sample_ids: Collection[int]
) -> dict[int, dict[str, np.ndarray]]:
    """Return the patches of each cluster in some samples: bool [n_visual] by sample_id and name.

    Only clusters that a sample has are in it. Reads only the row groups that hold the samples.
    """
    names = read_table(files.names, IMAGE_CLUSTER_NAMES, ["cluster", "name"])
    name_of = dict(zip(*(column.to_pylist() for column in names.columns), strict=True))
    rows = read_table(files.clusters, IMAGE_CLUSTERS, sample_ids=sample_ids)
    return {
        sample_id: {name_of[one]: clusters == one for one in np.unique(clusters).tolist()}
        for sample_id, clusters in zip(
            rows["sample_id"].to_pylist(), list_rows(rows["clusters"]), strict=True
        )
    }
