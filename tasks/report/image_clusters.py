"""Show the image clusters that explanations name, with images in which they cover most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

import numpy as np

from neuron_atlas.tasks.artifacts import (
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    list_rows,
    read_table,
)
from neuron_atlas.tasks.artifacts.regions import activation_map
from neuron_atlas.tasks.report.inputs import SampleFiles
from neuron_atlas.tasks.report.pictures import heat_map
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles

_MOST_CLUSTERS = 24
_MOST_SAMPLES = 4
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class ShownCluster:
    """An image cluster, with the samples in which it covers most.

    n_explanations: explanations that name it. share: of all visual tokens. sample_ids: largest
    share first. catalog: of these samples.
    """

    name: str
    n_explanations: int
    n_samples: int
    share: float
    sample_ids: tuple[int, ...]
    catalog: Catalog

    def heat(self, sample_id: int) -> str:
        """Return a picture of the cluster's patches in a sample, as a data URI."""
        patches = self.catalog.image_clusters(sample_id)[self.name]
        return heat_map(activation_map(self.catalog[sample_id].view, 10.0 * patches))


def read_shown_clusters(
    tables: Mapping[str, Sequence[Path]], samples: SampleFiles, explanations: Iterable[str]
) -> list[ShownCluster]:
    """Return the clusters that most explanations name, most often named first; none in a run
    without clusters."""
    if IMAGE_CLUSTERS.name not in tables:
        return []
    names = read_table(tables[IMAGE_CLUSTER_NAMES.name], IMAGE_CLUSTER_NAMES).to_pylist()
    named = Counter(name for text in explanations for name in dict.fromkeys(_QUOTED.findall(text)))
    rows = sorted(
        (row for row in names if named[row["name"]]),
        key=lambda row: (-named[row["name"]], row["cluster"]),
    )[:_MOST_CLUSTERS]
    files = ImageClusterFiles(tables[IMAGE_CLUSTERS.name], tables[IMAGE_CLUSTER_NAMES.name])
    largest = _largest(files.clusters, [row["cluster"] for row in rows])
    catalog = samples.open({one for ids in largest.values() for one in ids}, files)
    return [
        ShownCluster(
            row["name"],
            named[row["name"]],
            row["n_samples"],
            row["share"],
            largest[row["cluster"]],
            catalog,
        )
        for row in rows
    ]


def _largest(paths: Sequence[Path], clusters: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Return the samples in which each cluster covers most, largest share first."""
    best: dict[int, list[tuple[float, int]]] = {cluster: [] for cluster in clusters}
    for path in paths:
        table = read_table(path, IMAGE_CLUSTERS)
        rows = zip(table["sample_id"].to_pylist(), list_rows(table["clusters"]), strict=True)
        for sample_id, tokens in rows:
            counts = np.bincount(tokens)
            for cluster in np.flatnonzero(counts).tolist():
                if cluster in best:
                    best[cluster].append((-counts[cluster] / len(tokens), sample_id))
        best = {cluster: nsmallest(_MOST_SAMPLES, found) for cluster, found in best.items()}
    return {cluster: tuple(one for _, one in found) for cluster, found in best.items()}
