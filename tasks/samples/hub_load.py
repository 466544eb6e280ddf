"""Load one split of a dataset, and the image files that its rows name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, ReadInstruction
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.constants import HF_HUB_CACHE

from neuron_atlas.tasks.samples.hub_tars import SUFFIX, TarShards
from neuron_atlas.tasks.samples.image_file import read_file_inside
from neuron_atlas.tasks.samples.source import SampleError, SourceError


def load_split(
    name: str, split: str, config_name: str | None, revision: str | None
) -> tuple[Dataset, str] | TarShards:
    """Load a split with all its columns, and a fingerprint that changes with its content; or its
    WebDataset shards.

    Raises SourceError.
    """
    folder = local_folder(name)
    try:
        if folder is not None and _is_saved(folder):
            return _load_saved(folder, split)
        # Absolute, because the library has readers with names such as "json".
        source = name if folder is None else os.path.abspath(folder)
        builder = datasets.load_dataset_builder(source, name=config_name, revision=revision)
        files: Mapping[str, Sequence[str]] = builder.config.data_files or {}
        if files and all(file.endswith(SUFFIX) for listed in files.values() for file in listed):
            return _find_shards(files, split)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split)
        return dataset, dataset._fingerprint
    except SourceError:
        raise
    except DatasetNotFoundError as error:
        remedy = "correct data.dataset; for a private one, log in with `hf auth login`"
        raise SourceError(f"dataset {name}: {error}; {remedy}") from error
    except ConnectionError as error:
        remedy = (
            "this machine's cache does not hold it either. Load it once with a network, copy the "
            "cache (HF_HOME), or set data.dataset to a local folder"
        )
        raise SourceError(f"dataset {name}: {error}; {remedy}") from error
    except Exception as error:  # The library raises many kinds of errors.
        remedy = "correct the data settings (dataset, config_name, revision, split)"
        raise SourceError(
            f"dataset {name}, split {split}: {type(error).__name__}: {error}; {remedy}"
        ) from error


def local_folder(name: str) -> Path | None:
    """Return the folder of a local dataset; None for a name on the Hub."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def read_stored(path: str, folder: Path | None) -> bytes:
    """Read an image file from the dataset's own folder or from a Hugging Face cache.

    Raises SampleError.
    """
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


def _find_shards(files: Mapping[str, Sequence[str]], split: str) -> TarShards:
    """Return the shards of a split, downloaded if they are not local. Raises ValueError."""
    if split not in files:
        raise ValueError(
            f"no such split; the splits are {', '.join(map(str, files))}. Use data.limit to read "
            "the first samples of shards"
        )
    shards = [str(file) for file in files[split]]
    paths = datasets.DownloadManager().download(shards)
    common = os.path.commonpath([os.path.dirname(shard) for shard in shards])
    names = [os.path.relpath(shard, common) for shard in shards]
    return TarShards(dict(zip(names, map(Path, paths), strict=True)))


def _is_saved(folder: Path) -> bool:
    state_files = (
        datasets.config.DATASET_STATE_JSON_FILENAME,
        datasets.config.DATASETDICT_JSON_FILENAME,
    )
    return any((folder / file).is_file() for file in state_files)


def _load_saved(folder: Path, split: str) -> tuple[Dataset, str]:
    saved: Any = datasets.load_from_disk(str(folder))
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


def _caches() -> tuple[Path, ...]:
    config = datasets.config
    folders = (HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
    return tuple(Path(folder) for folder in (*folders, config.EXTRACTED_DATASETS_PATH))
