"""Tell images, videos and audio apart by the suffix of a file's name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"}
    | {".tif", ".tiff", ".avif", ".jp2", ".j2k", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm"}
    | {".heic", ".heif", ".heics", ".heifs", ".hif"}
)
"""Suffixes of the formats in `decode.FORMATS`."""
OTHER_IMAGE_SUFFIXES = frozenset(
    {".svg", ".ico", ".psd", ".tga", ".eps", ".jxl", ".exr", ".hdr", ".xcf"}
    | {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".raw"}
)
"""Suffixes of images in formats that are not read."""
_OTHER_MEDIA = {
    "video": {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv"},
    "audio": {".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus"},
}
_MEDIA_FIELD = re.compile(
    r"(?:img|image|picture|photo|pic|figure|frame|media|visual)s?"
    r"(?:_?(?:path|file|url|uri|name|list)s?)?"
)
_OTHER_MEDIA_FIELD = re.compile(r"(video|audio)s?(?:_?(?:path|file|url|uri|name|list)s?)?")


def media_kind(name: str) -> str:
    """Return "image", "video" or "audio" for a file's name or URL; "" for any other string."""
    if name.startswith(("data:image/", "data:video/", "data:audio/")):
        return name[5:10]
    suffix = PurePosixPath(name.partition("?")[0]).suffix.lower() if len(name) < 4096 else ""
    if suffix in IMAGE_SUFFIXES or suffix in OTHER_IMAGE_SUFFIXES:
        return "image"
    return next((kind for kind, suffixes in _OTHER_MEDIA.items() if suffix in suffixes), "")


def find_other_media(
    fields: Mapping[str, Any], text_field: str, *, has_images: bool
) -> tuple[str, str] | None:
    """Return the first field with a video or audio, and which of them it is; None without one.

    has_images: the row has images too. Then only the name of a field decides, because a video's
    name elsewhere may be where the images come from.
    """
    for name, value in fields.items():
        if name == text_field or not value:
            continue
        if named := _OTHER_MEDIA_FIELD.fullmatch(name.casefold()):
            return name, named[1]
        kinds = set() if has_images else {media_kind(text) for text in _strings(value)}
        if other := kinds & set(_OTHER_MEDIA):
            return name, min(other)
    return None


def find_image_field(fields: Mapping[str, Any], ignored: Collection[str]) -> str | None:
    """Return the first field that seems to hold images; None without one."""
    for name, value in fields.items():
        if name in ignored or not isinstance(value, str | list | dict) or not value:
            continue
        if _MEDIA_FIELD.fullmatch(name.casefold()):
            return name
        if any(media_kind(text) == "image" for text in _strings(value)):
            return name
    return None


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
