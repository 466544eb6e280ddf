"""Find the caption of each image of a folder: in tables, or in a text file next to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from neuron_atlas.tasks.samples.caption_tables import CaptionTable, find_tables, open_table
from neuron_atlas.tasks.samples.chat import read_text
from neuron_atlas.tasks.samples.files import FolderFiles
from neuron_atlas.tasks.samples.image_file import read_file_inside
from neuron_atlas.tasks.samples.rows import Row
from neuron_atlas.tasks.samples.source import SampleError, SampleRecord, SourceError, unusable


@dataclass(frozen=True)
class Captions:
    """Captions of a folder's images.

    texts: captions, or why one cannot be used, by image; also of images that do not exist. files:
    the text file of an image. nameless: rows without an image. note: where the captions are, for
    the user.
    """

    root: Path
    note: str
    texts: Mapping[str, str | SampleError] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    nameless: tuple[SampleRecord, ...] = ()

    def text(self, image: str) -> str:
        """Return the caption of an image; "" without one. Raises SampleError."""
        text = self.texts.get(image, "")
        if isinstance(text, SampleError):
            raise text
        if image not in self.files:
            return text
        name = self.files[image]
        try:
            return read_file_inside(self.root, name).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            problem = f"{name}: not UTF-8 ({error.reason}); save it as UTF-8"
            raise SampleError("malformed", problem) from error
        except SampleError as bad:
            raise SampleError(bad.status, f"{name}: {bad.reason}") from bad


def find_captions(
    root: Path,
    files: FolderFiles,
    captions: str | None,
    image_column: str | None,
    text_column: str | None,
) -> Captions:
    """Find the captions of `files`, which are in `root`.

    captions: the table, relative to `root`; None to look for tables, then for text files. See
    `find_tables` for the columns. Raises SourceError.
    """
    seen: list[str] = []
    if captions is not None:
        tables = [open_table(root, captions, image_column, text_column)]
    else:
        tables, seen = find_tables(root, files.tables, image_column, text_column)
        if not tables and (image_column is not None or text_column is not None):
            raise SourceError(
                f"{root}: no table has the columns in data.image_column and data.text_column; "
                f"seen: {', '.join(seen) or 'no table'}"
            )
    next_to = {image: name for image in files.images if (name := files.text_file(image))}
    if tables:
        return _read_tables(root, files, tables, len(next_to))
    others = f"; seen: {', '.join(seen)}" if seen else ""
    total = f"{len(files.images):,} images"
    if next_to:
        names = sorted({PurePosixPath(name).suffix for name in next_to.values()})
        note = f"captions from {' and '.join(names)} files next to {len(next_to):,} of {total}"
        return Captions(root, note + others, files=next_to)
    note = (
        f"no captions for {total}: there is no table (.csv, .tsv, .json, .jsonl) with an image and "
        f"a text column, and no .txt or .caption file next to an image{others}"
    )
    if seen:
        note += "; set data.captions, data.image_column and data.text_column to use one"
    return Captions(root, note)


def _read_tables(
    root: Path, files: FolderFiles, tables: Iterable[CaptionTable], n_text_files: int
) -> Captions:
    images = _Images(files.images)
    texts: dict[str, str | SampleError] = {}
    nameless: list[SampleRecord] = []
    for table in tables:
        folder = PurePosixPath(table.name).parent
        if folder.is_absolute() or ".." in folder.parts:
            folder = PurePosixPath()
        for row in table.rows():
            try:
                image = images.find(_image_name(row, table), folder)
            except SampleError as bad:
                nameless.append(unusable(str(folder / row.location), bad))
                continue
            # The first caption of an image counts.
            if isinstance(texts.get(image), str):
                continue
            try:
                row.check()
                texts[image] = read_text(row, table.text_column).text
            except SampleError as bad:
                texts[image] = bad
    n_captioned = sum(bool(texts.get(image)) for image in files.images)
    names = ", ".join(table.name for table in tables)
    note = f"captions from {names} for {n_captioned:,} of {len(files.images):,} images"
    if n_text_files:
        note += f"; the text files next to {n_text_files:,} images are not read"
    return Captions(root, note, texts, nameless=tuple(nameless))


def _image_name(row: Row, table: CaptionTable) -> str:
    name = row.identity(table.image_column)
    if not name:
        row.check()
        raise row.error(table.image_column, "is empty; add the image or remove the row")
    return name


class _Images:
    """The images of a folder, found by the names that tables give them."""

    def __init__(self, images: Iterable[str]) -> None:
        self._images = set(images)
        self._by_path: dict[str, str | None] = {}
        self._by_name: dict[str, str | None] = {}
        for image in images:
            path = PurePosixPath(image.casefold())
            for by_key, whole in ((self._by_path, path), (self._by_name, PurePosixPath(path.name))):
                for key in {str(whole), str(whole.with_suffix(""))}:
                    # None marks a key of several images.
                    by_key[key] = image if key not in by_key else None

    def find(self, name: str, folder: PurePosixPath) -> str:
        """Return the image that a table in `folder` means: a path relative to the folder or to the
        root; else the only image with that path or name, whatever its case, with or without a
        suffix. Returns the path itself if no image has it."""
        # "./a.jpg" and "a.jpg" are the same image. ".." stays: opening the image rejects it.
        paths = [folder / name, PurePosixPath(name)]
        if "\\" in name:
            paths += [folder / name.replace("\\", "/"), PurePosixPath(name.replace("\\", "/"))]
        for path in paths:
            if str(path) in self._images:
                return str(path)
        for path in paths:
            if ".." not in path.parts:
                by_path = self._by_path.get(str(path).casefold())
                if found := by_path or self._by_name.get(path.name.casefold()):
                    return found
        return str(paths[0])
