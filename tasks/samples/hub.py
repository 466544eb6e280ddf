"""A dataset of the Hugging Face Hub, or a local folder in one of its layouts."""

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
from neuron_atlas.tasks.samples.image_file import open_encoded, read_below
from neuron_atlas.tasks.samples.rows import Row
from neuron_atlas.tasks.samples.source import BadSample, OpenedImage, Record, Source, SourceError

_BATCH_ROWS = 1000


@dataclass(frozen=True)
class Hub(Source):
    """One split of a dataset that the `datasets` library reads without running its code.

    dataset: a name on the Hub, or a local folder of data files, of images, or of `save_to_disk`;
    split: such as "train" or "train[:100]"; text_column: a string or a list of strings, of which
    the first counts, None for no texts; id_column: by default the row's number is its id;
    max_pixels: larger images are "oversized"; limit: read only the first rows.
    An image's reference is its row's number.
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
        """See Source: the dataset's name and split."""
        name = Path(self.dataset).name if Path(self.dataset).is_absolute() else self.dataset
        return f"{name}, {self.split}"

    def records(self) -> Iterator[Record]:
        """List the rows without reading an image. Raises SourceError."""
        for number, fields in enumerate(islice(_rows(_open(self)), self.limit)):
            row = Row(fields, f"dataset {self.dataset}, split {self.split}, row {number}")
            yield Record(
                source_id=row.identity(self.id_column) if self.id_column else str(number),
                images=(str(number),),
                text=row.caption(self.text_column) if self.text_column else "",
            )

    def open_image(self, image: str) -> OpenedImage:
        """Open a row's image. Raises BadSample, or SourceError when the dataset cannot be read."""
        images = _open(self).images
        if not image.isdecimal() or int(image) >= len(images):
            raise BadSample("missing", f"row {image!r} is none of the {len(images)} rows")
        stored = images[int(image)][self.image_column] or {}
        encoded = stored.get("bytes")
        if encoded is None:
            encoded = _read(stored.get("path") or "", _local_folder(self.dataset))
        return open_encoded(encoded, self.max_pixels)

    def probe(self) -> str:
        """A digest of the dataset's fingerprint and of what is read of it."""
        # A dataset opened earlier in this process may have been replaced since.
        _open.cache_clear()
        columns = repr((self.image_column, self.text_column, self.id_column, self.limit))
        return hashlib.sha256((_open(self).fingerprint + columns).encode()).hexdigest()


@dataclass(frozen=True)
class _Opened:
    """A split taken apart, so that ids and texts can be listed without reading an image."""

    images: Dataset
    others: Dataset | None
    """The columns of texts and ids; None where neither is wanted."""
    fingerprint: str


# Rows are opened one by one: looking the dataset up once a process is often enough.
@lru_cache(maxsize=8)
def _open(hub: Hub) -> _Opened:
    dataset, fingerprint = _load(hub)
    others = [name for name in (hub.text_column, hub.id_column) if name is not None]
    for name in (hub.image_column, *others):
        if name not in dataset.column_names:
            raise SourceError(
                f"dataset {hub.dataset}, split {hub.split}: no column {name!r}; there are: "
                f"{', '.join(dataset.column_names)}; set data.image_column, data.text_column "
                "(null for none) or data.id_column"
            )
    feature = dataset.features[hub.image_column]
    if not _holds_images(feature):
        raise SourceError(
            f"dataset {hub.dataset}: column {hub.image_column!r} holds {feature}, not one image "
            "a row; set data.image_column"
        )
    images = dataset.select_columns([hub.image_column])
    return _Opened(
        # Undecoded: the bytes are hashed, and decoded with this program's own limits.
        images=images.cast_column(hub.image_column, datasets.Image(decode=False)),
        others=dataset.select_columns(others) if others else None,
        fingerprint=fingerprint,
    )


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _rows(opened: _Opened) -> Iterator[dict[str, Any]]:
    if opened.others is None:
        yield from ({} for _ in range(len(opened.images)))
        return
    for batch in opened.others.iter(batch_size=_BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _load(hub: Hub) -> tuple[Dataset, str]:
    """The split, undivided, and a fingerprint that changes with what it holds."""
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
            "it is not in the cache of this machine either: load it once with a network, copy "
            "the cache (HF_HOME), or set data.dataset to a local folder"
        )
        raise SourceError(f"dataset {hub.dataset}: {error}; {remedy}") from error
    except Exception as error:  # the library raises errors of many kinds, each with its reason
        remedy = "correct the data settings (dataset, config_name, revision, split)"
        raise SourceError(
            f"dataset {hub.dataset}, split {hub.split}: {type(error).__name__}: {error}; {remedy}"
        ) from error


def _local_folder(dataset: str) -> Path | None:
    folder = Path(dataset).expanduser()
    return folder if folder.is_dir() else None


def _is_saved(folder: Path) -> bool:
    marks = (datasets.config.DATASET_STATE_JSON_FILENAME, datasets.config.DATASETDICT_JSON_FILENAME)
    return any((folder / mark).is_file() for mark in marks)


def _load_saved(folder: Path, split: str) -> tuple[Dataset, str]:
    saved = datasets.load_from_disk(str(folder))
    # A dataset that was saved without a split's name gets the one that unnamed files get.
    splits = saved if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    lengths = {name: len(dataset) for name, dataset in splits.items()}
    pieces = ReadInstruction.from_spec(split).to_absolute(lengths)
    dataset = datasets.concatenate_datasets(
        [splits[piece.splitname].select(range(piece.from_, piece.to)) for piece in pieces]
    )
    # Datasets saved from image files keep their fingerprint when only the files change.
    stamps = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.glob("**/*.arrow"))
    ]
    fingerprints = [piece._fingerprint for piece in splits.values()]
    return dataset, repr((fingerprints, split, stamps))


def _read(path: str, folder: Path | None) -> bytes:
    """Read an image that the dataset stores as a file: in its own folder, or in a cache."""
    if not path:
        raise BadSample("missing", "the row holds no image")
    if "://" in path:
        raise BadSample("outside", f"{path!r} is an address; only downloaded images are read")
    if folder is not None and not os.path.isabs(path):
        return read_below(folder, path)
    refusal = BadSample("missing", f"{path!r} was not downloaded with the dataset")
    if not os.path.isabs(path):
        raise refusal
    for root in (folder, *_caches()):
        if root is None or not root.is_dir():
            continue
        try:
            return read_below(root, path)
        except BadSample as bad:
            if bad.status != "outside":
                raise
            refusal = bad
    raise refusal


def _caches() -> tuple[Path, ...]:
    config = datasets.config
    places = (HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
    return tuple(Path(place) for place in (*places, config.EXTRACTED_DATASETS_PATH))
