"""How the site is cut into work, and which file holds what; the scripts in app/ name the same
files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from neuron_atlas.tasks.artifacts import row_count
from neuron_atlas.tasks.report.inputs import LayerFiles

FOLDER = "site"
"""Within the report's folder."""

CHUNK = 32
"""Neurons a file of details: a neuron with images, traces and two explainers is some 30 kB."""

PART = 16 * CHUNK
"""Neurons of one work item, which are read together."""

SAMPLE_CHUNK = 16
"""Samples a file."""

PER_FOLDER = 256


@dataclass(frozen=True)
class SitePart:
    """Rows `start` to `stop` of a layer's `types`: the neurons of one work item."""

    layer: int
    start: int
    stop: int


def cut_layer(files: LayerFiles) -> list[SitePart]:
    """The parts of one layer."""
    rows = sum(row_count(path) for path in files["types"])
    return [SitePart(files.layer, start, min(start + PART, rows)) for start in range(0, rows, PART)]


def table_key(layer: int) -> str:
    """The columns of one layer that need no explainer."""
    return f"table/{layer}"


def account_key(account: int, layer: int) -> str:
    """The columns of one layer and one explainer with its simulator."""
    return f"accounts/{account}/{layer}"


def words_key(explainer: int, layer: int) -> str:
    """The explanations of one layer by one explainer."""
    return f"words/{explainer}/{layer}"


def neurons_key(layer: int, row: int) -> str:
    """The details of a layer's neurons around a row of its table."""
    return f"neurons/{layer}/{row // CHUNK}"


def samples_key(sample_id: int) -> str:
    """The samples around an id."""
    chunk = sample_id // SAMPLE_CHUNK
    return f"samples/{chunk // PER_FOLDER}/{chunk}"


def data_file(key: str) -> PurePosixPath:
    """The file of a key, relative to the site."""
    return PurePosixPath("data", f"{key}.js")


def image_file(digest: str, suffix: str) -> PurePosixPath:
    """The file of an image, relative to the site: few enough in a folder to list them."""
    return PurePosixPath("images", digest[:2], f"{digest[2:18]}.{suffix}")
