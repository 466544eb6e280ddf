"""Define the site's work items and file names. The scripts in app/ use the same file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from neuron_atlas.tasks.artifacts import row_count
from neuron_atlas.tasks.report.inputs import LayerFiles

FOLDER = "site"
"""Folder of the site in the report's folder."""

CHUNK = 32
"""Neurons per details file. A neuron with images, traces and two explainers takes about 30 kB."""

PART = 16 * CHUNK
"""Neurons of one work item. They are read together."""

SAMPLE_CHUNK = 16
"""Samples per file."""

PER_FOLDER = 256


@dataclass(frozen=True)
class SitePart:
    """Neurons of one work item: rows `start` to `stop` (exclusive) of a layer's `types`."""

    layer: int
    start: int
    stop: int


def split_layer(files: LayerFiles) -> list[SitePart]:
    """Return the work items of one layer."""
    rows = sum(row_count(path) for path in files["types"])
    return [SitePart(files.layer, start, min(start + PART, rows)) for start in range(0, rows, PART)]


def table_key(layer: int) -> str:
    """Return the key of a layer's columns that do not depend on an explainer."""
    return f"table/{layer}"


def scores_key(pair: int, layer: int) -> str:
    """Return the key of a layer's columns for one pair of explainer and simulator."""
    return f"scores/{pair}/{layer}"


def words_key(explainer: int, layer: int) -> str:
    """Return the key of a layer's explanations by one explainer."""
    return f"words/{explainer}/{layer}"


def texts_key(layer: int) -> str:
    """Return the key of the words that find a layer's neurons without an explanation."""
    return f"texts/{layer}"


def neurons_key(layer: int, row: int) -> str:
    """Return the key of the details file that holds a row of a layer's table."""
    return f"neurons/{layer}/{row // CHUNK}"


def samples_key(sample_id: int) -> str:
    """Return the key of the file that holds a sample."""
    chunk = sample_id // SAMPLE_CHUNK
    return f"samples/{chunk // PER_FOLDER}/{chunk}"


def data_file(key: str) -> PurePosixPath:
    """Return the file of a key, relative to the site."""
    return PurePosixPath("data", f"{key}.js")


def image_file(digest: str, suffix: str) -> PurePosixPath:
    """Return the file of an image, relative to the site. Subfolders keep listings short."""
    return PurePosixPath("images", digest[:2], f"{digest[2:18]}.{suffix}")
