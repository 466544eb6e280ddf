"""Read a folder of images with captions from a table, from one text file per image, or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from neuron_atlas.tasks.samples.captions import Captions, find_captions
from neuron_atlas.tasks.samples.decode import DEFAULT_MAX_PIXELS
from neuron_atlas.tasks.samples.files import FolderFiles, list_files
from neuron_atlas.tasks.samples.image_file import digest_files, open_image_inside
from neuron_atlas.tasks.samples.source import (
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
    SourceError,
    unusable,
)


@dataclass(frozen=True)
class Folder(Source):
    """All images in a folder and its subfolders, sorted by relative path. The path is the id.

    captions: the caption table, relative to `path`. The default is the table named captions or
    metadata, or the only table with an image and a text column. Without a table, the caption of
    x.jpg is in x.txt or x.caption in the same folder; without that, it is "". The first caption of
    an image counts. A caption without an image gives a sample with status "missing".
    image_column, text_column: the table's columns; None for those with obvious names.
    max_pixels: larger images are "oversized". limit: read only the first images.
    Skips hidden files and folders, and does not follow links to folders.
    """

    path: str
    captions: str | None = None
    image_column: str | None = None
    text_column: str | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    limit: int | None = None

    @property
    def title(self) -> str:
        """The folder's name."""
        return Path(self.path).resolve().name

    def records(self) -> Iterator[SampleRecord]:
        """Yield the images, and the captions without an image, by path. Raises SourceError."""
        files, captions = self._read()
        names = {*files.images, *captions.texts}
        rows = {record.source_id: record for record in captions.nameless}
        for name in islice(sorted({*names, *rows}), self.limit):
            yield rows[name] if name not in names else _record(name, captions)

    def open_image(self, image: str) -> OpenedImage:
        """Open an image of the folder. Raises SampleError, and SourceError if there is no
        folder."""
        return open_image_inside(self._root, image, self.max_pixels)

    def probe(self) -> str:
        """Return a digest of the captions and of every image's size and modification time."""
        return digest_files(self.records(), self._root)

    def notes(self) -> list[str]:
        """Return where the captions come from, and which files are not read. Raises SourceError."""
        files, captions = self._read()
        lines = [captions.note]
        if files.others:
            lines.append(f"not read: {_counted(files)}")
        return lines

    def _read(self) -> tuple[FolderFiles, Captions]:
        if not self._root.is_dir():
            raise SourceError(f"{self.path}: no such folder; correct data.path")
        files = list_files(self._root)
        if not files.images:
            held = f"it holds {_counted(files)}" if files.others else "it is empty"
            raise SourceError(
                f"{self.path}: no images in a format such as JPEG, PNG or HEIC; {held}. Correct "
                "data.path"
            )
        columns = (self.image_column, self.text_column)
        return files, find_captions(self._root, files, self.captions, *columns)

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser()


def _record(name: str, captions: Captions) -> SampleRecord:
    try:
        return SampleRecord(name, (name,), captions.text(name))
    except SampleError as bad:
        return unusable(name, bad, (name,))


def _counted(files: FolderFiles) -> str:
    return ", ".join(f"{count:,} {suffix}" for suffix, count in files.others.most_common(5))
