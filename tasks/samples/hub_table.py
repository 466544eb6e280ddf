"""Read images and texts of a table of the `datasets` library, each without the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset

from neuron_atlas.tasks.samples.columns import IMAGE_COLUMNS, TEXT_COLUMNS, find_column
from neuron_atlas.tasks.samples.rows import Row
from neuron_atlas.tasks.samples.source import SampleError, SourceError

_BATCH_ROWS = 1000
_TEXTS = ("string", "large_string")
_PATHS = (*_TEXTS, "binary", "large_binary")


@dataclass(frozen=True)
class TableRow:
    """One row. row: its text and id columns. images: references."""

    row: Row
    images: tuple[str, ...]


@dataclass(frozen=True)
class HubTable:
    """A split as two tables, so that ids and texts are read without the images.

    images: one column. has_lists: it holds a list of images per row. texts: the text and id
    columns; None if neither is used.
    """

    images: Dataset
    has_lists: bool
    texts: Dataset | None
    text_column: str | None
    fingerprint: str

    @property
    def image_column(self) -> str:
        """Name of the column with the images."""
        return str(self.images.column_names[0])

    def rows(self) -> Iterator[TableRow]:
        """Yield the rows without reading an image.

        The reference of an image is its row's number, or "row/position" in a list.
        """
        fields = _fields(self.texts, len(self.images))
        for number, (row, count) in enumerate(zip(fields, self._counts(), strict=True)):
            images = tuple(f"{number}/{position}" for position in range(count))
            yield TableRow(Row(row, f"row {number}"), images if self.has_lists else (str(number),))

    def read(self, reference: str) -> dict[str, Any]:
        """Return an image as `{bytes, path}`. Raises SampleError."""
        row, _, position = reference.partition("/")
        if not row.isdecimal() or int(row) >= len(self.images):
            raise SampleError("missing", f"row {row!r} is not one of the {len(self.images)} rows")
        stored = self.images[int(row)][self.image_column]
        if self.has_lists:
            listed = stored or []
            if not position.isdecimal() or int(position) >= len(listed):
                raise SampleError("missing", f"row {row} has no image {position!r}")
            stored = listed[int(position)]
        return stored or {}

    def _counts(self) -> Iterator[int]:
        """Yield the number of images in each row, from the lists' offsets."""
        if not self.has_lists:
            yield from (1 for _ in range(len(self.images)))
            return
        for batch in self.images.with_format("arrow").iter(batch_size=_BATCH_ROWS):
            lengths = pc.list_value_length(batch[self.image_column])
            yield from (length or 0 for length in lengths.to_pylist())


def open_table(
    dataset: Dataset,
    fingerprint: str,
    image_column: str | None,
    text_column: str | None,
    id_column: str | None,
    *,
    has_text: bool,
) -> HubTable:
    """Return the table with its columns chosen.

    image_column, text_column: None to choose by type and name. has_text: whether texts are read.
    Raises SourceError if a column does not exist or holds something else.
    """
    if image_column is None:
        image_column = _choose_images(dataset)
    if text_column is None and has_text:
        text_column = _choose_texts(dataset, image_column)
    columns = [name for name in (text_column, id_column) if name is not None]
    for name in (image_column, *columns):
        if name not in dataset.column_names:
            raise SourceError(f"no column {name!r}. {_remedy(dataset)}")
    feature = dataset.features[image_column]
    has_lists = isinstance(feature, datasets.List | datasets.LargeList)
    if not _holds_images(feature.feature if has_lists else feature):
        raise SourceError(
            f"column {image_column!r} holds {feature}, not images; set data.image_column"
        )
    if text_column is not None and not _holds_texts(dataset.features[text_column]):
        raise SourceError(
            f"column {text_column!r} holds {dataset.features[text_column]}, not texts; set "
            "data.text_column"
        )
    # Not decoded: this program hashes the bytes and decodes them within its own limits.
    encoded: Any = datasets.Image(decode=False)
    return HubTable(
        images=dataset.select_columns([image_column]).cast_column(
            image_column, datasets.List(encoded) if has_lists else encoded
        ),
        has_lists=has_lists,
        texts=dataset.select_columns(columns) if columns else None,
        text_column=text_column,
        fingerprint=fingerprint,
    )


def _choose_images(dataset: Dataset) -> str:
    """Return the only column of images, or else the one with the best name."""
    typed = [name for name, feature in dataset.features.items() if _is_image(feature)]
    named = [name for name in dataset.column_names if _may_hold_images(dataset.features[name])]
    chosen = typed[0] if len(typed) == 1 else find_column(typed or named, IMAGE_COLUMNS)
    if chosen is None:
        raise SourceError(f"no column is clearly that of the images. {_remedy(dataset)}")
    return chosen


def _choose_texts(dataset: Dataset, image_column: str) -> str:
    names = [name for name, feature in dataset.features.items() if _holds_texts(feature)]
    chosen = find_column([name for name in names if name != image_column], TEXT_COLUMNS)
    if chosen is None:
        raise SourceError(f"no column is clearly that of the texts. {_remedy(dataset)}")
    return chosen


def _remedy(dataset: Dataset) -> str:
    return (
        f"The columns are {', '.join(dataset.column_names)}; set data.image_column, "
        "data.text_column (null for none) or data.id_column"
    )


def _is_image(feature: Any) -> bool:
    if isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    return isinstance(feature, datasets.Image)


def _may_hold_images(feature: Any) -> bool:
    is_list = isinstance(feature, datasets.List | datasets.LargeList)
    return _holds_images(feature.feature if is_list else feature)


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, datasets.Value):
        return feature.dtype in _PATHS
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _holds_texts(feature: Any) -> bool:
    """Return whether a column may hold captions, lists of captions, or conversations."""
    if isinstance(feature, datasets.List | datasets.LargeList):
        return isinstance(feature.feature, dict) or _holds_texts(feature.feature)
    if isinstance(feature, datasets.Value):
        return feature.dtype in _TEXTS
    return isinstance(feature, dict)


def _fields(texts: Dataset | None, n_rows: int) -> Iterator[dict[str, Any]]:
    if texts is None:
        yield from ({} for _ in range(n_rows))
        return
    for batch in texts.iter(batch_size=_BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
