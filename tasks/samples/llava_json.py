"""Read image-text pairs in the format of LLaVA's instruction data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from neuron_atlas.tasks.clean_text import clean_text
from neuron_atlas.tasks.samples.chat import check_images, image_reference, read_chat
from neuron_atlas.tasks.samples.columns import CHAT_COLUMNS, find_column
from neuron_atlas.tasks.samples.decode import DEFAULT_MAX_PIXELS
from neuron_atlas.tasks.samples.image_file import digest_files, open_image_inside
from neuron_atlas.tasks.samples.media import find_other_media, media_kind
from neuron_atlas.tasks.samples.rows import Row, read_annotation_rows
from neuron_atlas.tasks.samples.source import (
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
    SourceError,
    unusable,
)

_IMAGES = ("image", "images")


@dataclass(frozen=True)
class LlavaJson(Source):
    """A .json list (or .jsonl) of `{id, image, conversations: [{from, value}, ...]}`.

    Also reads `{images, messages: [{role, content}, ...]}`. `image` and `images` hold a path or a
    list of paths; a row without them is a sample without images. The sample's text is the first
    answer (`gpt` or `assistant`), or "" without an answer. The default id is the row's number.
    `objects`, if a row has it, lists the names of the objects in its images.
    A row with a video or audio is "skipped". A row whose images or answer are not found where they
    are expected is "malformed".

    annotations: the file. images: the folder that contains all images; the rows' paths are
    relative to it. max_pixels: larger images are "oversized". limit: read only the first rows.
    """

    annotations: str
    images: str
    max_pixels: int = DEFAULT_MAX_PIXELS
    limit: int | None = None

    @property
    def title(self) -> str:
        """The name of the annotations file."""
        return Path(self.annotations).name

    def records(self) -> Iterator[SampleRecord]:
        """Yield the rows in file order. Raises SourceError."""
        if not self._folder.is_dir():
            raise SourceError(f"{self.images}: no such folder; correct data.images")
        for row in islice(read_annotation_rows(Path(self.annotations).expanduser()), self.limit):
            yield _record(row)

    def open_image(self, image: str) -> OpenedImage:
        """Open an image of the folder. Raises SampleError, and SourceError if there is no
        folder."""
        return open_image_inside(self._folder, image, self.max_pixels)

    def probe(self) -> str:
        """Return a digest of the rows and of their images' sizes and modification times."""
        digest = digest_files(self.records(), self._folder)
        objects = self.objects()
        if not objects:
            return digest
        return hashlib.sha256(f"{digest}{json.dumps(objects)}".encode()).hexdigest()

    def objects(self, source_ids: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Return the objects of some rows, or of all; rows without `objects` are left out.

        Raises SourceError.
        """
        found = {}
        for row in islice(read_annotation_rows(Path(self.annotations).expanduser()), self.limit):
            objects = row.fields.get("objects")
            if objects is None:
                continue
            if not isinstance(objects, list) or not all(isinstance(one, str) for one in objects):
                raise SourceError(
                    f'{row.location}: field "objects" must be a list of names; correct the row'
                )
            try:
                source_id = clean_text(row.identity("id") or row.location)
            except SampleError:
                continue
            if source_ids is None or source_id in source_ids:
                found[source_id] = tuple(one.casefold() for one in objects)
        return found

    @property
    def _folder(self) -> Path:
        return Path(self.images).expanduser()


def _record(row: Row) -> SampleRecord:
    source_id = row.location
    images: tuple[str, ...] = ()
    try:
        row.check()
        source_id = row.identity("id") or row.location
        images = _images(row)
        chat = find_column(row.fields, CHAT_COLUMNS) or CHAT_COLUMNS[0]
        _refuse_other_media(row, chat, images)
        said = read_chat(row, chat)
        if said.other_media:
            raise _skipped(row, chat, said.other_media)
        images = images or tuple(said.images)
        check_images(row, chat, said, len(images))
        return SampleRecord(source_id, images, said.text)
    except SampleError as bad:
        return unusable(source_id, bad, images)


def _images(row: Row) -> tuple[str, ...]:
    one, several = (_references(row, name) for name in _IMAGES)
    return several if set(one) <= set(several) else one + several


def _references(row: Row, name: str) -> tuple[str, ...]:
    value = row.fields.get(name)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, list) else [value]
    for part in parts:
        if not isinstance(part, str | dict | None):
            raise row.error(name, f"must be a string, not {type(part).__name__}; correct the row")
    return tuple(image_reference(part) for part in parts)


def _refuse_other_media(row: Row, chat: str, images: tuple[str, ...]) -> None:
    kinds = {media_kind(image) for image in images}
    if other := kinds & {"video", "audio"}:
        raise _skipped(row, _IMAGES[0], min(other))
    if found := find_other_media(row.fields, chat, has_images=bool(images)):
        raise _skipped(row, *found)


def _skipped(row: Row, name: str, kind: str) -> SampleError:
    return SampleError(
        "skipped",
        f'{row.location}: field "{name}" has a {kind}, which is not read; only images are',
    )
