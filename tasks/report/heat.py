"""Pictures of one exemplar: the image as the subject saw it, and the heat map over it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from neuron_atlas.tasks.report.palette import heat_colours
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.source import BadSample, SourceError

LARGEST_SIDE = 320
"""Pixels that a page's image has at most; smaller ones are kept as they are."""
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class SavedView:
    """A sample's image on disk, named relative to the page; or why there is none."""

    path: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def save_view(catalog: Catalog, sample_id: int, folder: Path) -> SavedView:
    """Write what the subject saw of a sample as a small JPEG into `folder`/images.

    An image that no longer opens is a view with a problem: the page shows a gap, and why.
    """
    if sample_id not in catalog.samples:
        return SavedView(problem="this sample is no longer listed as usable")
    if not catalog[sample_id].regions:
        return SavedView(problem="this sample has none")
    try:
        view = catalog.open_view(sample_id)
    except BadSample as bad:
        return SavedView(problem=f"{bad.status}: {bad.reason}")
    except (OSError, SourceError) as error:
        return SavedView(problem=str(error))
    view.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    path = folder / "images" / f"{sample_id}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Full colour resolution, as a small coloured thing may be what a neuron responds to.
    view.save(path, quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return SavedView(f"images/{path.name}", view.width, view.height)


def heat_map(tens: np.ndarray) -> str:
    """A heat map as the data URI of a PNG of one pixel a patch, to be scaled over the image.

    tens: [rows, columns] over the whole view (`heat_over`), normalised to 0-10.
    """
    pixels = Image.fromarray(heat_colours(tens / 10), "RGBA")
    written = io.BytesIO()
    pixels.save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode("ascii")
