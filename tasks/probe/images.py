"""Read a user's image."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.samples.decode import decode_image
from neuron_atlas.tasks.samples.source import SampleError


def read_image(image: str | Path | Image.Image) -> Image.Image:
    """Return an image in RGB, upright. Raises ProbeError."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    path = Path(image).expanduser()
    if not path.is_file():
        raise ProbeError(f"the image {str(image)!r} is not a file")
    try:
        return decode_image(path.read_bytes())
    except SampleError as error:
        remedy = "; shrink it" if error.status == "oversized" else ""
        reason = error.reason.partition("; raise data.max_pixels")[0]
        raise ProbeError(f"the image {str(image)!r} cannot be read: {reason}{remedy}") from error
    except OSError as error:
        raise ProbeError(f"the image {str(image)!r} cannot be read: {error.strerror}") from error
