"""Make the pictures of an exemplar: the image as the subject saw it, and its heat map."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from neuron_atlas.tasks.report.palette import heat_colors
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.source import SampleError, SourceError

_JPEG_QUALITY = 88


def open_scaled_view(
    catalog: Catalog, sample_id: int, longest_side: int | None = None
) -> tuple[Image.Image | None, str]:
    """Open a sample's image as the subject saw it, in RGB, at most `longest_side` pixels long.

    Returns (image, ""), or (None, reason) if the sample has no image or it cannot be opened.
    """
    if sample_id not in catalog.samples:
        return None, "this sample is no longer listed as usable"
    if not catalog[sample_id].regions:
        return None, "this sample has none"
    if catalog.source is None:
        return None, "the dataset is not available"
    try:
        view = catalog.open_view(sample_id)
    except SampleError as bad:
        return None, f"{bad.status}: {bad.reason}"
    except (OSError, SourceError) as error:
        return None, str(error)
    if longest_side is not None:
        view.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return view, ""


def jpeg_bytes(view: Image.Image) -> bytes:
    """Encode a view as a JPEG."""
    written = io.BytesIO()
    # Full color resolution, because a neuron may respond to a small colored object.
    view.save(written, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return written.getvalue()


def heat_map(tens: np.ndarray) -> str:
    """Return a heat map as the data URI of a PNG with one pixel per patch.

    tens: float [rows, columns] over the whole view (`activation_map`), normalized to 0-10.
    """
    written = io.BytesIO()
    Image.fromarray(heat_colors(tens / 10), "RGBA").save(written, "PNG", optimize=True)
    return data_uri("image/png", written.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return a data URI. An SVG embedded this way runs no scripts and keeps its ids to itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
