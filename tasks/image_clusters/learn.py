"""Learn clusters of similar patches from a part of the dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from sklearn.cluster import KMeans

from neuron_atlas.tasks.artifacts import IMAGE_CLUSTER_CENTERS
from neuron_atlas.tasks.image_clusters.patches import read_patches
from neuron_atlas.tasks.image_clusters.settings import ImageClusterSettings
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.subject import Subject

_MAX_PATCHES = 50_000
"""Patches that centers are fitted to, which limits the time that fitting takes."""


def learn_centers(
    subject: Subject,
    sample_ids: Sequence[int],
    catalog: Catalog,
    settings: ImageClusterSettings,
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return `image_cluster_centers` rows, learned from the visual tokens of some samples.

    Each sample gives the same number of patches, drawn with the seed, if it has so many. Raises
    SubjectError and SampleError.
    """
    most = max(1, _MAX_PATCHES // max(1, len(sample_ids)))
    drawn: dict[int, np.ndarray] = {}

    def take(sample_id: int, vectors: np.ndarray) -> None:
        chosen = np.random.default_rng([settings.seed, sample_id]).permutation(len(vectors))
        drawn[sample_id] = vectors[np.sort(chosen[:most])]

    read_patches(subject, sample_ids, catalog, take, batch_size, threads, on_batch)
    patches = [drawn[sample_id] for sample_id in sorted(drawn)]
    centers = fit_centers(np.concatenate(patches) if patches else np.zeros((0, 1)), settings)
    return pa.table(
        {"cluster": np.arange(len(centers), dtype=np.int16), "center": list(centers)},
        schema=IMAGE_CLUSTER_CENTERS.schema,
    )


def fit_centers(patches: np.ndarray, settings: ImageClusterSettings) -> np.ndarray:
    """Return the centers of clusters by k-means, from k-means++ (Arthur and Vassilvitskii 2007).

    patches: [patches, width]. Returns float32 [clusters, width], with the largest cluster first; no
    more clusters than there are distinct patches.
    """
    count = min(settings.count, len(np.unique(patches, axis=0)))
    if not count:
        return np.zeros((0, patches.shape[1]), np.float32)
    fitted = KMeans(count, random_state=settings.seed, n_init=1).fit(patches)
    sizes = np.bincount(fitted.labels_, minlength=count)
    order = np.argsort(-sizes, kind="stable")
    return fitted.cluster_centers_[order].astype(np.float32)
