"""Reduce a PNG file to what its pixels need."""

from __future__ import annotations

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME = 12
"""Bytes of a chunk besides its content: length, type and checksum."""
_KEPT = (b"tRNS", b"eXIf")
"""Chunks besides the critical ones that change the picture: transparency and rotation."""


def without_metadata(encoded: bytes) -> bytes | None:
    """Return a PNG file without the chunks that do not change its picture; None if it is no PNG.

    Pillow refuses a file for metadata that is too large or broken, such as the prompt of an image
    generator.
    """
    if not encoded.startswith(_SIGNATURE):
        return None
    kept = [_SIGNATURE]
    start = len(_SIGNATURE)
    while start < len(encoded):
        length = int.from_bytes(encoded[start : start + 4], "big")
        chunk = encoded[start : start + _FRAME + length]
        if _is_needed(chunk):
            kept.append(chunk)
        start += _FRAME + length
    return b"".join(kept)


def _is_needed(chunk: bytes) -> bool:
    kind = chunk[4:8]
    is_critical = kind[:1].isupper()
    is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
    return is_critical or (kind in _KEPT and is_whole)
