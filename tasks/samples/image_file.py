"""Open a dataset's image files; reject files outside the dataset's folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from neuron_atlas.tasks.samples.decode import decode_image
from neuron_atlas.tasks.samples.source import OpenedImage, SampleError, SampleRecord, SourceError

_MAX_NAME = 100
"""Characters of a file's name in a message. An embedded image may stand in its place."""


def open_image_inside(root: Path, name: str, max_pixels: int) -> OpenedImage:
    """Read and decode the image at `name`, relative to `root`.

    Raises as `read_file_inside` does, and SampleError "oversized" or "unreadable".
    """
    return open_encoded(read_file_inside(root, name), max_pixels)


def open_encoded(encoded: bytes, max_pixels: int) -> OpenedImage:
    """Decode an image file's bytes. Raises SampleError "oversized" or "unreadable"."""
    return OpenedImage(decode_image(encoded, max_pixels), hashlib.sha256(encoded).hexdigest())


def read_file_inside(root: Path, name: str) -> bytes:
    """Read the file at `name`, relative to `root`; reject files outside `root`.

    Resolves `..` and symbolic links before the check. Raises SampleError "missing",
    "outside_folder" or "unreadable", and SourceError if `root` does not exist.
    """
    # Messages give the dataset's name of the file, because `root` differs between machines.
    if not name:
        raise SampleError("missing", "the row names no image")
    if "://" in name or name.startswith("data:"):
        raise SampleError(
            "outside_folder",
            f"{_short(name)!r} is not a file; only downloaded images are read, so save it in the "
            "dataset's folder",
        )
    try:
        folder = root.resolve()
        path = (folder / name).resolve()
        is_inside, is_file = path.is_relative_to(folder), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # A loop of links, a name too long ...
        raise SampleError(
            "missing", f"{_short(name)!r} is not a path ({type(error).__name__})"
        ) from error
    if not is_inside:
        raise SampleError(
            "outside_folder",
            f"{name!r} is outside the dataset's folder; copy the file into it, or choose a folder "
            "that contains all files",
        )
    if not is_file:
        if not folder.is_dir():
            raise SourceError(f"{root}: no such folder on this machine; mount it or correct it")
        raise SampleError("missing", f"{name!r} is not a file in the dataset's folder")
    try:
        return path.read_bytes()
    except OSError as error:
        raise SampleError("unreadable", f"{name!r}: {error.strerror}") from error


def digest_files(records: Iterable[SampleRecord], root: Path) -> str:
    """Return a digest of the records and of their files' sizes and modification times."""
    digest = hashlib.sha256()
    for record in records:
        stamps = [_stamp(root, image) for image in record.images]
        row = (record.source_id, record.images, record.text, record.status, stamps)
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."


def _stamp(root: Path, name: str) -> tuple[int, int]:
    try:
        stat = os.stat(os.path.join(root, name))
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
