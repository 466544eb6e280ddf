"""Read a dataset from the Hugging Face Hub, or from a local folder in one of its layouts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, ReadInstruction
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.constants import HF_HUB_CACHE

from neuron_atlas.tasks.samples.decode import DEFAULT_MAX_PIXELS
from neuron_atlas.tasks.samples.image_file import open_encoded, read_file_inside
from neuron_atlas.tasks.samples.rows import Row
from neuron_atlas.tasks.samples.source import (
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
    SourceError,
)

_BATCH_ROWS = 1000


@dataclass(frozen=True)
class Hub(Source):
    """One split of a dataset, read by the `datasets` library without remote code.

    dataset: a name on the Hub, or a local folder with data files, images, or the output of
    `save_to_disk`. split: such as "train" or "train[:100]". text_column: holds a string, or a list
    whose first string counts; None for no texts. id_column: None takes the row number as the id.
    max_pixels: larger images are "oversized". limit: read only the first rows.
    An image's reference is its row number.
    """

    dataset: str
    split: str
    image_column: str = "image"
    text_column: str | None = "text"
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
        for number, fields in enumerate(islice(_rows(_open(self)), self.limit)):
            row = Row(fields, f"dataset {self.dataset}, split {self.split}, row {number}")
            yield SampleRecord(
                source_id=row.identity(self.id_column) if self.id_column else str(number),
                images=(str(number),),
                text=row.caption(self.text_column) if self.text_column else "",
            )

    def open_image(self, image: str) -> OpenedImage:
        """Open a row's image. Raises SampleError, and SourceError if the dataset cannot be read."""
        images = _open(self).images
        if not image.isdecimal() or int(image) >= len(images):
            raise SampleError("missing", f"row {image!r} is not one of the {len(images)} rows")
        stored = images[int(image)][self.image_column] or {}
        encoded = stored.get("bytes")
        if encoded is None:
            encoded = _read(stored.get("path") or "", _local_folder(self.dataset))
        return open_encoded(encoded, self.max_pixels)

    def probe(self) -> str:
        """Return a digest of the dataset's fingerprint and of the columns and rows read."""
        # The dataset may have changed since this process opened it.
        _open.cache_clear()
        columns = repr((self.image_column, self.text_column, self.id_column, self.limit))
        return hashlib.sha256((_open(self).fingerprint + columns).encode()).hexdigest()


@dataclass(frozen=True)
class _Opened:
    """A split as two datasets, so that ids and texts are read without the images."""

    images: Dataset
    text_columns: Dataset | None
    """The text and id columns; None if neither is used."""
    fingerprint: str


# Rows are opened one by one, so each process caches the opened dataset.
@lru_cache(maxsize=8)
def _open(hub: Hub) -> _Opened:
    dataset, fingerprint = _load(hub)
    text_columns = [name for name in (hub.text_column, hub.id_column) if name is not None]
    for name in (hub.image_column, *text_columns):
        if name not in dataset.column_names:
            raise SourceError(
                f"dataset {hub.dataset}, split {hub.split}: no column {name!r}. The columns are "
                f"{', '.join(dataset.column_names)}; set data.image_column, data.text_column "
                "(null for none) or data.id_column"
            )
    feature = dataset.features[hub.image_column]
    if not _holds_images(feature):
        raise SourceError(
            f"dataset {hub.dataset}: column {hub.image_column!r} holds {feature}, not one image "
            "per row; set data.image_column"
        )
    images = dataset.select_columns([hub.image_column])
    return _Opened(
        # Not decoded: this program hashes the bytes and decodes them within its own limits.
        images=images.cast_column(hub.image_column, datasets.Image(decode=False)),
        text_columns=dataset.select_columns(text_columns) if text_columns else None,
        fingerprint=fingerprint,
    )


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _rows(opened: _Opened) -> Iterator[dict[str, Any]]:
    if opened.text_columns is None:
        yield from ({} for _ in range(len(opened.images)))
        return
    for batch in opened.text_columns.iter(batch_size=_BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _load(hub: Hub) -> tuple[Dataset, str]:
    """Load the split, with all its columns, and a fingerprint that changes with its content."""
    folder = _local_folder(hub.dataset)
    try:
        if folder is not None and _is_saved(folder):
            return _load_saved(folder, hub.split)
        dataset = datasets.load_dataset(
            hub.dataset if folder is None else str(folder),
            name=hub.config_name,
            split=hub.split,
            revision=hub.revision,
        )
        return dataset, dataset._fingerprint
    except DatasetNotFoundError as error:
        remedy = "correct data.dataset; for a private one, log in with `hf auth login`"
        raise SourceError(f"dataset {hub.dataset}: {error}; {remedy}") from error
    except ConnectionError as error:
        remedy = (
            "this machine's cache does not hold it either. Load it once with a network, copy the "
            "cache (HF_HOME), or set data.dataset to a local folder"
        )
        raise SourceError(f"dataset {hub.dataset}: {error}; {remedy}") from error
    except Exception as error:  # The library raises many kinds of errors.
        remedy = "correct the data settings (dataset, config_name, revision, split)"
        raise SourceError(
            f"dataset {hub.dataset}, split {hub.split}: {type(error).__name__}: {error}; {remedy}"
        ) from error


def _local_folder(dataset: str) -> Path | None:
    folder = Path(dataset).expanduser()
    return folder if folder.is_dir() else None


def _is_saved(folder: Path) -> bool:
    state_files = (
        datasets.config.DATASET_STATE_JSON_FILENAME,
        datasets.config.DATASETDICT_JSON_FILENAME,
    )
    return any((folder / file).is_file() for file in state_files)


def _load_saved(folder: Path, split: str) -> tuple[Dataset, str]:
    saved = datasets.load_from_disk(str(folder))
    # A dataset saved without a split name is "train", like data files without a split name.
    splits = saved if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    lengths = {name: len(dataset) for name, dataset in splits.items()}
    pieces = ReadInstruction.from_spec(split).to_absolute(lengths)
    dataset = datasets.concatenate_datasets(
        [splits[piece.splitname].select(range(piece.from_, piece.to)) for piece in pieces]
    )
    # The library's fingerprint of a saved dataset does not change with its files; stamps do.
    stamps = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.glob("**/*.arrow"))
    ]
    fingerprints = [piece._fingerprint for piece in splits.values()]
    return dataset, repr((fingerprints, split, stamps))


def _read(path: str, folder: Path | None) -> bytes:
    """Read an image file from the dataset's own folder or from a Hugging Face cache."""
    if not path:
        raise SampleError("missing", "the row has no image")
    if "://" in path:
        raise SampleError("outside_folder", f"{path!r} is a URL; only downloaded images are read")
    if folder is not None and not os.path.isabs(path):
        return read_file_inside(folder, path)
    refusal = SampleError("missing", f"{path!r} was not downloaded with the dataset")
    if not os.path.isabs(path):
        raise refusal
    for root in (folder, *_caches()):
        if root is None or not root.is_dir():
            continue
        try:
            return read_file_inside(root, path)
        except SampleError as bad:
            if bad.status != "outside_folder":
                raise
            refusal = bad
    raise refusal


def _caches() -> tuple[Path, ...]:
    config = datasets.config
    folders = (HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
    return tuple(Path(folder) for folder in (*folders, config.EXTRACTED_DATASETS_PATH))
