"""Turn the bytes of an image file into upright 8-bit RGB, whatever the file's own mode."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from neuron_atlas.tasks.samples.source import BadSample

DEFAULT_MAX_PIXELS = 2**26
"""8192 x 8192 pixels: 200 MB as RGB, and less than the size at which Pillow starts to warn."""

# Only formats whose pixels Pillow or a bundled codec decodes: others start programs (EPS runs
# Ghostscript) or are not photographs. JPEG includes the stereo pairs of MPO.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(encoded: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode the first frame of an image file to RGB as a viewer shows it.

    The EXIF rotation is applied, transparency is laid on white, and 16-bit, 32-bit and float
    greys are scaled to 8 bits. Raises BadSample: "oversized" when the header announces more than
    `max_pixels` (nothing is decoded then), "unreadable" when the bytes are no whole image.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise BadSample(
                "oversized",
                f"{width} x {height} pixels are more than {max_pixels}; "
                "data.max_pixels raises the limit",
            )
        # Before mode and orientation are asked for: TIFF turns itself upright while it loads.
        image.load()
        return _upright(_to_rgb(image), _orientation(image))
    except BadSample:
        raise
    except Image.UnidentifiedImageError as error:
        # Pillow's own message holds a memory address, which would differ from run to run.
        known = ", ".join(FORMATS)
        raise BadSample("unreadable", f"not an image of a known format ({known})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's limit is a global of the process, which is not ours to change.
        raise BadSample(
            "oversized", f"{error} This is Pillow's own limit; shrink the image."
        ) from error
    except Exception as error:  # codecs raise OSError, SyntaxError, ValueError, struct.error ...
        raise BadSample("unreadable", f"{type(error).__name__}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(image, ranges=(65535,))
    if image.mode == "I":
        # PPM values were scaled to 16 bits on reading; other files do not say what they span.
        return _grey(image, ranges=(65535,) if image.format == "PPM" else (255, 65535))
    if image.mode == "F":
        return _grey(image, ranges=(1, 255, 65535))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, ranges: Sequence[int]) -> Image.Image:
    """Scale one channel of any depth to 8 bits.

    White is the end of the smallest of `ranges` that holds every value; values that fit none
    (negative, or larger) are stretched from their lowest to their highest. NaN is black.
    """
    values = np.asarray(image)
    values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    finite = values[np.isfinite(values)]
    black, white = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    for end in ranges:
        if black >= 0 and white <= end:
            black, white = 0.0, float(end)
            break
    values = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
    shares = np.clip((values - black) / ((white - black) or 1.0), 0, 1)
    return Image.fromarray(np.rint(shares * 255).astype(np.uint8)).convert("RGB")


def _orientation(image: Image.Image) -> int | None:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata says nothing about rotation, and the pixels are whole
        return None
    return orientation if isinstance(orientation, int) else None


def _upright(pixels: Image.Image, orientation: int | None) -> Image.Image:
    turn = _TURNS.get(orientation) if orientation is not None else None
    return pixels if turn is None else pixels.transpose(turn)
