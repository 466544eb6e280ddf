"""Pictures of one exemplar: the image as the subject saw it, and the heat map over it."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from neuron_atlas.tasks.report.palette import heat_colours
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.source import BadSample, SourceError

_JPEG_QUALITY = 88


def open_view(
    catalog: Catalog, sample_id: int, longest_side: int | None = None
) -> tuple[Image.Image | None, str]:
    """What the subject saw of a sample, RGB, at most `longest_side` px long; or why there is none.

    An image that no longer opens is such a reason: a view shows a gap, and says why.
    """
    if sample_id not in catalog.samples:
        return None, "this sample is no longer listed as usable"
    if not catalog[sample_id].regions:
        return None, "this sample has none"
    if catalog.source is None:
        return None, "the dataset is not at hand"
    try:
        view = catalog.open_view(sample_id)
    except BadSample as bad:
        return None, f"{bad.status}: {bad.reason}"
    except (OSError, SourceError) as error:
        return None, str(error)
    if longest_side is not None:
        view.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return view, ""


def jpeg_bytes(view: Image.Image) -> bytes:
    """A view as a JPEG."""
    written = io.BytesIO()
    # Full colour resolution, as a small coloured thing may be what a neuron responds to.
    view.save(written, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return written.getvalue()


def heat_map(tens: np.ndarray) -> str:
    """A heat map as the data URI of a PNG of one pixel a patch, to be scaled over the image.

    tens: [rows, columns] over the whole view (`heat_over`), normalised to 0-10.
    """
    written = io.BytesIO()
    Image.fromarray(heat_colours(tens / 10), "RGBA").save(written, "PNG", optimize=True)
    return data_uri("image/png", written.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """A file inside a page: a picture, in which nothing can run and ids stay its own."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
