"""Files of places in samples whose embeddings stages read, and of these embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    PEAK_EMBEDDINGS,
    PEAK_PLACES,
    layer_file,
    read_table,
    row_count,
)
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Item

if TYPE_CHECKING:
    from neuron_atlas.tasks.samples.catalog import Catalog

PLACES = "peaks"
"""Folder of these files, until the stage is complete."""


def places_file(layer: int) -> str:
    """Return the name of a layer's file of places, relative to the stage's folder."""
    return f"{PLACES}/{layer_file(PEAK_PLACES, layer)}"


def embeddings_file(descriptions: Path) -> str:
    """Return the name of the embeddings at the places on the samples of one file of texts."""
    name = descriptions.stem.replace("descriptions", PEAK_EMBEDDINGS.name, 1)
    return f"{PLACES}/{name}.{PEAK_EMBEDDINGS.format}"


def embedding_items(
    context: Context, places: Sequence[Path], prefix: str = "", further: tuple[Any, ...] = ()
) -> list[Item]:
    """Return an item for each file of texts, which embeds the places on its samples.

    prefix: of the items' keys. further: inputs after those of all embeddings.
    """
    capture, samples = context.settings.capture, context.paths("samples", "samples")
    reading = (samples, context.settings.data.source, capture.batch_size, capture.image_threads)
    return [
        Item(
            key=f"{prefix}{path.stem}",
            size=row_count(path),
            files=(embeddings_file(path),),
            inputs=(path, places, *reading, *further),
        )
        for path in context.paths("describe", "descriptions")
    ]


def open_places(
    descriptions: Path, places: Sequence[Path], samples: Sequence[Path], source: Source
) -> tuple[np.ndarray, Catalog]:
    """Return the distinct places on the samples of one file of texts, ascending, and a catalog of
    the samples that have some. places, samples: files of `peak_places` and of `samples`."""
    from neuron_atlas.tasks.artifacts.places import read_places, sample_of
    from neuron_atlas.tasks.samples.catalog import open_catalog

    listed = read_table(descriptions, DESCRIPTIONS, ["sample_id"])["sample_id"].to_numpy()
    found = read_places(places, listed)
    wanted = set(sample_of(found).tolist())
    return found, open_catalog(samples, [descriptions], sample_ids=wanted, source=source)
