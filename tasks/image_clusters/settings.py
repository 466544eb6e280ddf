"""Settings of the `image_clusters` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class ImageClusterSettings:
    """Settings of the clusters of similar patches, for images without ground-truth concepts.

    count: number of clusters; 0 for none. samples: samples that the clusters are learned from.
    seed: of these samples, of their patches, and of the first centers.
    """

    count: Annotated[int, Ge(0), Le(1024)] = 64
    samples: AtLeastOne = 1000
    seed: int = 0
