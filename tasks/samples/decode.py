"""Decode image files of any mode to upright 8-bit RGB."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image
from pillow_heif import register_heif_opener

from neuron_atlas.tasks.samples.png_chunks import without_metadata
from neuron_atlas.tasks.samples.source import SampleError

DEFAULT_MAX_PIXELS = 2**26
"""8192 x 8192 pixels: 200 MB as RGB, and below the size at which Pillow warns."""

# Only formats that Pillow or a bundled codec decodes. Other formats start programs (EPS runs
# Ghostscript) or are not photographs. JPEG includes the stereo pairs of MPO, and HEIF the HEIC
# files of phones.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")

register_heif_opener()

_TRANSPOSES = {
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

    Applies the EXIF rotation, puts transparent images on white, and scales 16-bit, 32-bit and
    float grays to 8 bits. Broken or oversized metadata of a PNG does not matter. Raises
    SampleError: "oversized" if the header announces more than `max_pixels` or Pillow's own limit
    (nothing is decoded), "unreadable" if the bytes are not a complete image.
    """
    try:
        return _decode(encoded, max_pixels)
    except SampleError:
        raise
    except Image.UnidentifiedImageError as error:
        # Pillow's message contains a memory address, which differs from run to run.
        raise SampleError(
            "unreadable",
            f"not an image in a supported format ({', '.join(FORMATS)}); save it as JPEG or PNG",
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's limit is global to the process, so this function does not change it.
        raise SampleError(
            "oversized", f"{error} This is Pillow's own limit; shrink the image."
        ) from error
    except Exception as error:  # Codecs raise OSError, SyntaxError, ValueError, struct.error ...
        raise SampleError("unreadable", f"{type(error).__name__}: {error}") from error


def _decode(encoded: bytes, max_pixels: int) -> Image.Image:
    try:
        return _decode_pixels(encoded, max_pixels)
    except (SampleError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as error:
        pixels_only = without_metadata(encoded)
        if pixels_only is None:
            raise
        try:
            return _decode_pixels(pixels_only, max_pixels)
        except Exception:
            raise error from None  # The pixels are broken too.


def _decode_pixels(encoded: bytes, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise SampleError(
            "oversized",
            f"{width} x {height} pixels exceed the limit of {max_pixels}; raise data.max_pixels",
        )
    # Load before reading mode and orientation: TIFF turns itself upright while it loads.
    image.load()
    return _upright(_to_rgb(image), _orientation(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _gray(image, ranges=(65535,))
    if image.mode == "I":
        # Pillow scales PPM values to 16 bits; other formats do not store their value range.
        return _gray(image, ranges=(65535,) if image.format == "PPM" else (255, 65535))
    if image.mode == "F":
        return _gray(image, ranges=(1, 255, 65535))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _gray(image: Image.Image, ranges: Sequence[int]) -> Image.Image:
    """Scale one channel of any depth to 8 bits, returned as RGB.

    White is the smallest of `ranges` that is at least every value, and black is 0. If no range
    fits (negative or larger values), black is the lowest value and white the highest. NaN is black.
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
    except Exception:  # The metadata is broken, but the pixels are complete.
        return None
    return orientation if isinstance(orientation, int) else None


def _upright(pixels: Image.Image, orientation: int | None) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation) if orientation is not None else None
    return pixels if transpose is None else pixels.transpose(transpose)
