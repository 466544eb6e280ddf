"""Write the samples that the site shows, each once with its image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import activation_map
from neuron_atlas.tasks.report.inputs import SampleFiles
from neuron_atlas.tasks.report.pictures import open_scaled_view
from neuron_atlas.tasks.report.settings import SiteSettings
from neuron_atlas.tasks.report.site.layout import SAMPLE_CHUNK, data_file, image_file, samples_key
from neuron_atlas.tasks.report.site.script import write_atomically, write_script
from neuron_atlas.tasks.samples.catalog import Catalog

BATCH = 16 * SAMPLE_CHUNK
"""Samples per work item."""


def split_samples(sample_ids: Iterable[int]) -> list[tuple[int, ...]]:
    """Split sample ids into work items. All samples of a file are in the same item."""
    ordered = sorted(set(sample_ids))
    return [tuple(group) for _, group in groupby(ordered, key=lambda one: one // BATCH)]


def write_samples(
    site: Path, sample_ids: Sequence[int], files: SampleFiles, settings: SiteSettings
) -> None:
    """Write the samples, `SAMPLE_CHUNK` per file, and their images.

    A sample without an image, or whose image no longer opens, holds the reason instead of an image.
    """
    catalog = files.open(set(sample_ids))
    for key, group in groupby(sorted(sample_ids), key=samples_key):
        described = {str(one): _describe(site, one, catalog, settings) for one in group}
        write_script(site / data_file(key), key, described)


def _describe(site: Path, sample_id: int, catalog: Catalog, settings: SiteSettings) -> Any:
    sample = catalog.samples.get(sample_id)
    if sample is None:
        return {"problem": open_scaled_view(catalog, sample_id)[1]}
    described: dict[str, Any] = {"id": sample.source_id, "tokens": list(sample.tokens)}
    if sample.regions:
        grid = activation_map(sample.view, np.zeros(sample.n_visual, np.float32)).shape
        described |= {"size": [sample.view.width, sample.view.height], "grid": list(grid)}
    picture, problem = open_scaled_view(catalog, sample_id, settings.image_px)
    if picture is None:
        return described | {"problem": problem}
    return described | {"image": _write_image(site, picture, settings.image_quality)}


def _write_image(site: Path, picture: Image.Image, quality: int) -> str:
    written = io.BytesIO()
    picture.save(written, "WEBP", quality=quality, method=4)
    content = written.getvalue()
    name = image_file(hashlib.sha256(content).hexdigest(), "webp")
    path = site / name
    if not path.is_file():
        write_atomically(path, content)
    return name.as_posix()
