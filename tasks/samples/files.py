"""List the files of a folder of images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from neuron_atlas.tasks.samples.media import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from neuron_atlas.tasks.samples.source import SourceError

TABLE_STEMS = ("captions", "caption", "metadata")
"""Names of tables of captions."""
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_TEXT_SUFFIXES = (".txt", ".caption")


@dataclass
class FolderFiles:
    """Files of a folder and its subfolders, as paths relative to it.

    images: also those of a format that is not read, unless the same picture is there in one that
    is. tables: files that may hold captions. texts: text files next to an image, by path without
    their suffix, in lower case. others: number of the remaining files by suffix.
    """

    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def text_file(self, image: str) -> str | None:
        """Return the text file next to an image (x.txt or x.jpg.txt for x.jpg); None without one.

        Case matters only if several files differ in it.
        """
        for stem in (str(PurePosixPath(image).with_suffix("")), image):
            found = self.texts.get(stem.casefold(), [])
            exact = [name for name in found if str(PurePosixPath(name).with_suffix("")) == stem]
            if exact or found:
                return (exact or found)[0]
        return None


def list_files(root: Path) -> FolderFiles:
    """List a folder and its subfolders. Skips hidden files and folders, and links to folders.

    Raises SourceError if a folder cannot be listed.
    """
    files = FolderFiles()
    not_read, tables, texts = [], [], []
    for name in sorted(_walk(root)):
        suffix = _suffix(name)
        if suffix in IMAGE_SUFFIXES:
            files.images.append(name)
        elif suffix in OTHER_IMAGE_SUFFIXES:
            not_read.append(name)
        elif suffix in _TABLE_SUFFIXES:
            tables.append(name)
        elif suffix in _TEXT_SUFFIXES:
            texts.append(name)
        else:
            files.others[suffix or "without a suffix"] += 1
    # Cameras store a raw file next to its JPEG.
    stems = {_stem(name) for name in files.images}
    files.images += [name for name in not_read if _stem(name) not in stems]
    stems = {_stem(name) for name in files.images} | {name.casefold() for name in files.images}
    for name in sorted(texts, key=lambda name: _TEXT_SUFFIXES.index(_suffix(name))):
        if _stem(name) in stems:
            files.texts.setdefault(_stem(name), []).append(name)
        elif PurePosixPath(name).stem.casefold() in TABLE_STEMS:
            files.tables.append(name)
        else:
            files.others[f"{_suffix(name)} without an image"] += 1
    for name in tables:
        if _stem(name) in stems:  # Notes of one image.
            files.others[_suffix(name)] += 1
        else:
            files.tables.append(name)
    return files


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()


def _refuse(error: OSError) -> None:
    # By default os.walk skips folders that it cannot list, so samples would be lost silently.
    raise SourceError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix().casefold()


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
