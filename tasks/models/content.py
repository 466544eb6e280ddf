"""What messages are made of: words, pictures, and text that anybody may have written."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

_JPEG_QUALITY = 90


def words(text: str) -> dict[str, Any]:
    """A part of a message that is text."""
    return {"type": "text", "text": text}


def picture(url: str, detail: str) -> dict[str, Any]:
    """A part of a message that is a picture; `detail` is the protocol's."""
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


def data_url(image: Image.Image) -> str:
    """A picture as a JPEG within its own address."""
    encoded = io.BytesIO()
    # Colours in full resolution (4:4:4): a patch is only a dozen pixels wide.
    image.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def escape(text: str) -> str:
    r"""One line of `text`, with nothing in it that could be taken for a mark or a tag.

    Braces, angle brackets and backslashes get a backslash before them; what cannot be printed
    becomes `\n`, `\t`, or its code point as in Python (`\x07`, `\u202e`).
    """
    return "".join(_escaped(character) for character in text)


def printable(text: str) -> str:
    """The text on one line, with nothing in it that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _escaped(character: str) -> str:
    if character in "\\{}<>":
        return f"\\{character}"
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
