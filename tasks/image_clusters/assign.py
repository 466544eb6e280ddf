"""Find the cluster of every patch of some samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import IMAGE_CLUSTERS
from neuron_atlas.tasks.image_clusters.patches import read_patches
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.subject import Subject


def assign_clusters(
    subject: Subject,
    sample_ids: Sequence[int],
    catalog: Catalog,
    centers: pa.Table,
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return `image_clusters` rows of some samples with visual tokens, by sample_id.

    centers: `image_cluster_centers` rows. Raises SubjectError and SampleError.
    """
    points = np.array(centers.sort_by("cluster")["center"].to_pylist(), np.float32)
    found: dict[int, np.ndarray] = {}

    def take(sample_id: int, vectors: np.ndarray) -> None:
        found[sample_id] = nearest_centers(vectors, points)

    if len(points):
        read_patches(subject, sample_ids, catalog, take, batch_size, threads, on_batch)
    ids = sorted(found)
    return pa.table(
        {"sample_id": ids, "clusters": [found[sample_id] for sample_id in ids]},
        schema=IMAGE_CLUSTERS.schema,
    )


def nearest_centers(vectors: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the nearest center of each vector, int16; the first one of a tie.

    vectors: [vectors, width]. centers: [centers, width].
    """
    # Of the squared distance, the vector's own length is the same for all centers.
    closeness = vectors @ centers.T - np.square(centers).sum(axis=1) / 2
    return closeness.argmax(axis=1).astype(np.int16)
