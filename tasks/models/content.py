"""Parts of chat messages: text and images, and escaping of untrusted text."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

_JPEG_QUALITY = 90


def text_part(text: str) -> dict[str, Any]:
    """Return a text part of a message."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: str) -> dict[str, Any]:
    """Return an image part of a message; detail: as in the protocol (low, high, auto)."""
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


def data_url(image: Image.Image) -> str:
    """Return an image as a data URL with JPEG content."""
    encoded = io.BytesIO()
    # Full color resolution (4:4:4): a patch is only a dozen pixels wide.
    image.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def escape(text: str) -> str:
    r"""Return `text` as one line that cannot contain a marker or a tag.

    Adds a backslash before braces, angle brackets and backslashes. Unprintable characters become
    `\n`, `\t`, or their code point as in Python (`\x07`, `\u202e`).
    """
    return "".join(_escaped(character) for character in text)


def printable(text: str) -> str:
    """Return the text on one line, with spaces in place of unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _escaped(character: str) -> str:
    if character in "\\{}<>":
        return f"\\{character}"
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
