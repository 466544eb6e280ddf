"""Read a folder of images with captions from a table, from one text file per image, or none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from neuron_atlas.tasks.samples.decode import DEFAULT_MAX_PIXELS
from neuron_atlas.tasks.samples.image_file import digest_files, open_image_inside, read_file_inside
from neuron_atlas.tasks.samples.rows import Row, read_annotation_rows
from neuron_atlas.tasks.samples.source import (
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
    SourceError,
)

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2"}
    | {".ppm", ".pgm", ".pbm"}
)
_TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
_IMAGE_FIELDS = ("image", "file_name")
_TEXT_FIELDS = ("text", "caption")


@dataclass(frozen=True)
class Folder(Source):
    """All images in a folder and its subfolders, sorted by relative path. The path is the id.

    captions: the caption table, relative to `path`, with fields image (or file_name) and text (or
    caption). The default is captions.csv, captions.jsonl, metadata.csv, metadata.jsonl or the only
    .jsonl in `path`. Without a table, the caption of x.jpg is in x.txt in the same folder; without
    that, it is "". The first caption of an image counts. A caption without an image gives a sample
    with status "missing".
    max_pixels: larger images are "oversized". limit: read only the first images.
    Skips hidden files and folders, and does not follow links to folders.
    """

    path: str
    captions: str | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    limit: int | None = None

    @property
    def title(self) -> str:
        """The folder's name."""
        return Path(self.path).resolve().name

    def records(self) -> Iterator[SampleRecord]:
        """Yield the images, and the captions without an image, by path. Raises SourceError."""
        root = self._root
        if not root.is_dir():
            raise SourceError(f"{self.path}: no such folder; correct data.path")
        table = _caption_table(root, self.captions)
        captions = {} if table is None else _read_captions(table)
        names = sorted({*_image_names(root), *captions})
        for name in islice(names, self.limit):
            text = captions.get(name, "") if table is not None else _caption_file(root, name)
            yield SampleRecord(name, (name,), text)

    def open_image(self, image: str) -> OpenedImage:
        """Open an image of the folder. Raises SampleError, and SourceError if there is no
        folder."""
        return open_image_inside(self._root, image, self.max_pixels)

    def probe(self) -> str:
        """Return a digest of the captions and of every image's size and modification time."""
        return digest_files(self.records(), self._root)

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser()


def _image_names(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            path = Path(folder, file)
            if file.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            name = path.relative_to(root).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise SourceError(f"{root}: the name {name!r} is not UTF-8; rename it") from error
            yield name


def _refuse(error: OSError) -> None:
    # By default os.walk skips folders that it cannot list, so samples would be lost silently.
    raise SourceError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _caption_table(root: Path, captions: str | None) -> Path | None:
    if captions is not None:
        return root / captions
    tables = [root / name for name in _TABLES if (root / name).is_file()]
    tables = tables or sorted(path for path in root.glob("*.jsonl") if path.is_file())
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise SourceError(
            f"{root}: several caption tables ({names}); set data.captions to one of them"
        )
    return tables[0] if tables else None


def _read_captions(table: Path) -> Mapping[str, str]:
    captions: dict[str, str] = {}
    for row in read_annotation_rows(table):
        image = row.string(_field(row, _IMAGE_FIELDS))
        if not image:
            raise row.error(_field(row, _IMAGE_FIELDS), "is empty; add the image or remove the row")
        # "./a.jpg" and "a.jpg" are the same image. ".." stays: opening the image rejects it.
        captions.setdefault(PurePosixPath(image).as_posix(), row.caption(_field(row, _TEXT_FIELDS)))
    return captions


def _field(row: Row, names: tuple[str, ...]) -> str:
    for name in names:
        if name in row.fields:
            return name
    found = ", ".join(row.fields)
    raise row.error(names[0], f'(or "{names[1]}") is missing; found: {found}; rename one')


def _caption_file(root: Path, image: str) -> str:
    name = PurePosixPath(image).with_suffix(".txt").as_posix()
    if not os.path.lexists(root / name):
        return ""
    try:
        return read_file_inside(root, name).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise SourceError(f"{root / name}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except SampleError as bad:
        raise SourceError(f"{root / name}: {bad.reason}") from bad
