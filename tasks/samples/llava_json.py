"""Read image-text pairs in the format of LLaVA's instruction data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from neuron_atlas.tasks.samples.decode import DEFAULT_MAX_PIXELS
from neuron_atlas.tasks.samples.image_file import digest_files, open_image_inside
from neuron_atlas.tasks.samples.rows import Row, read_annotation_rows
from neuron_atlas.tasks.samples.source import OpenedImage, SampleRecord, Source, SourceError


@dataclass(frozen=True)
class LlavaJson(Source):
    """A .json list (or .jsonl) of `{id, image, conversations: [{from, value}, ...]}`.

    `image` is a path, a list of paths for several images, or absent for a sample without images.
    The sample's text is the first answer (`from: gpt`), or "" without an answer.

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
            yield SampleRecord(row.identity("id"), row.strings("image"), _first_answer(row))

    def open_image(self, image: str) -> OpenedImage:
        """Open an image of the folder. Raises SampleError, and SourceError if there is no
        folder."""
        return open_image_inside(self._folder, image, self.max_pixels)

    def probe(self) -> str:
        """Return a digest of the rows and of their images' sizes and modification times."""
        return digest_files(self.records(), self._folder)

    @property
    def _folder(self) -> Path:
        return Path(self.images).expanduser()


def _first_answer(row: Row) -> str:
    turns = row.fields.get("conversations")
    if not isinstance(turns, list):
        raise row.error("conversations", "must be a list of {from, value}; correct the row")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or "from" not in turn:
            raise row.error("conversations", f'has no "from" in turn {number}; correct the row')
        if turn["from"] == "gpt":
            return Row(turn, f"{row.location}, turn {number}").string("value")
    return ""
