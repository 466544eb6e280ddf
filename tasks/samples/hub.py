"""Read a dataset from the Hugging Face Hub, or from a local folder in one of its layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from neuron_atlas.tasks.samples.chat import SampleText, check_images, read_text
from neuron_atlas.tasks.samples.columns import TEXT_COLUMNS, find_column
from neuron_atlas.tasks.samples.decode import DEFAULT_MAX_PIXELS
from neuron_atlas.tasks.samples.hub_load import load_split, local_folder, read_stored
from neuron_atlas.tasks.samples.hub_table import HubTable, open_table
from neuron_atlas.tasks.samples.hub_tars import KEY_COLUMN, TarShards
from neuron_atlas.tasks.samples.image_file import open_encoded
from neuron_atlas.tasks.samples.media import find_other_media
from neuron_atlas.tasks.samples.rows import Row
from neuron_atlas.tasks.samples.source import (
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
    SourceError,
    unusable,
)

AUTO = "auto"


@dataclass(frozen=True)
class Hub(Source):
    """One split of a dataset, read by the `datasets` library without remote code.

    dataset: a name on the Hub, or a local folder with data files, images, WebDataset shards (.tar),
    or the output of `save_to_disk`. split: such as "train" or "train[:100]". image_column: holds an
    image, or a list of images; of shards, the suffix of the images. text_column: holds a string, a
    list whose first string counts, or a conversation whose first answer counts; None for no texts.
    "auto" chooses a column by its type and name. id_column: None takes the row number as the id, or
    the key of a shard's sample. max_pixels: larger images are "oversized". limit: read only the
    first rows.
    """

    dataset: str
    split: str
    image_column: str = AUTO
    text_column: str | None = AUTO
    config_name: str | None = None
    revision: str | None = None
    id_column: str | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    limit: int | None = None

    @property
    def title(self) -> str:
        """The dataset's name and split."""
        name = Path(self.dataset).name if Path(self.dataset).is_absolute() else self.dataset
        return f"{name}, {self.split}"

    def records(self) -> Iterator[SampleRecord]:
        """Yield the rows without reading an image. Raises SourceError."""
        opened = _open(self)
        if isinstance(opened, TarShards):
            suffix = None if self.image_column == AUTO else self.image_column
            for sample in islice(opened.samples(suffix), self.limit):
                yield _record(sample.row, sample.images, self._text_of(sample.row), self._id(True))
            return
        for table_row in islice(opened.rows(), self.limit):
            yield _record(table_row.row, table_row.images, opened.text_column, self._id(False))

    def open_image(self, image: str) -> OpenedImage:
        """Open one image. Raises SampleError, and SourceError if the dataset cannot be read."""
        opened = _open(self)
        if isinstance(opened, TarShards):
            return open_encoded(opened.read(image), self.max_pixels)
        stored = opened.read(image)
        encoded = stored.get("bytes")
        if encoded is None:
            encoded = read_stored(stored.get("path") or "", local_folder(self.dataset))
        return open_encoded(encoded, self.max_pixels)

    def probe(self) -> str:
        """Return a digest of the dataset's fingerprint and of the columns and rows read."""
        # The dataset may have changed since this process opened it.
        _open.cache_clear()
        columns = repr((self.image_column, self.text_column, self.id_column, self.limit))
        return hashlib.sha256((_open(self).fingerprint + columns).encode()).hexdigest()

    def notes(self) -> list[str]:
        """Return which columns hold the images and the texts. Raises SourceError."""
        opened = _open(self)
        if isinstance(opened, TarShards):
            return [f"{len(opened.paths):,} WebDataset shards"]
        texts = f"texts from {opened.text_column}" if opened.text_column else "no texts"
        return [f"images from column {opened.image_column}, {texts}"]

    def _text_of(self, row: Row) -> str | None:
        """Return the field of a shard's sample that holds its text."""
        if self.text_column != AUTO:
            return self.text_column
        # A separate text file is clearer than a field of the metadata.
        return find_column(row.fields, ("txt", *TEXT_COLUMNS))

    def _id(self, is_sharded: bool) -> str | None:
        return KEY_COLUMN if self.id_column is None and is_sharded else self.id_column


def _record(
    row: Row, images: tuple[str, ...], text_column: str | None, id_column: str | None
) -> SampleRecord:
    source_id = row.location.removeprefix("row ")
    try:
        if id_column is not None:
            source_id = row.identity(id_column) or source_id
        row.check()
        if found := find_other_media(row.fields, text_column or "", has_images=bool(images)):
            raise SampleError("skipped", f"{row.location}: {found[0]} is {found[1]}, not an image")
        read = SampleText() if text_column is None else read_text(row, text_column)
        if read.other_media:
            raise SampleError("skipped", f"{row.location}: {text_column} has a {read.other_media}")
        if text_column is not None:
            check_images(row, text_column, read, len(images))
        return SampleRecord(source_id, images, read.text)
    except SampleError as bad:
        return unusable(source_id, bad, images)


# Rows are opened one by one, so each process caches the opened dataset.
@lru_cache(maxsize=8)
def _open(hub: Hub) -> HubTable | TarShards:
    where = f"dataset {hub.dataset}, split {hub.split}"
    loaded = load_split(hub.dataset, hub.split, hub.config_name, hub.revision)
    if isinstance(loaded, TarShards):
        return loaded
    dataset, fingerprint = loaded
    try:
        return open_table(
            dataset,
            fingerprint,
            None if hub.image_column == AUTO else hub.image_column,
            None if hub.text_column == AUTO else hub.text_column,
            hub.id_column,
            has_text=hub.text_column is not None,
        )
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from error
