"""Locations of artifacts: a local folder, or a prefix in an object store.

The annotation `Path` stands for both: a `UPath` is not a `Path`, but reads, writes and joins like
one. This file handles all differences between the two. A local file gets its name by a rename, an
object exists once its upload is complete. Readers therefore never see a half-written file.

Object stores take credentials and endpoint from the environment (AWS_ACCESS_KEY_ID ...,
AWS_ENDPOINT_URL). A location contains neither, so it is safe to log and to send to workers.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from neuron_atlas.tasks.artifacts.full_disk import raise_if_disk_full

if TYPE_CHECKING:
    from upath import UPath

_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Stores where an object appears only when it is complete. ssh and smb are not: mount those."""
_PART_BYTES = 16 * 2**20
"""Larger files are uploaded to S3 in parts of this size, several at a time."""
_COMPLETE = ".whole"
"""Name of the object that marks a folder in an object store as complete."""


def is_uri(text: str) -> bool:
    """Return whether `text` is a URI such as s3://bucket/prefix."""
    return "://" in text


def parse_location(text: str) -> Path:
    """Return the location of a path or URI. Raises ValueError if the URI cannot be used."""
    if not is_uri(text):
        return Path(text)
    protocol, _, rest = text.partition("://")
    if protocol == "file":
        return Path(rest)
    if protocol not in _OBJECT_STORES:
        raise ValueError(
            f"{protocol}:// is not a supported object store ({', '.join(_OBJECT_STORES)}). Mount "
            "it and pass the folder."
        )
    if not rest.strip("/"):
        raise ValueError(f"{text!r} has no bucket; write {protocol}://BUCKET/PREFIX")
    from upath import UPath  # Only object stores need this package.

    try:
        # No listing cache: files that other machines write later must be seen.
        path = UPath(text.rstrip("/"), use_listings_cache=False)
        path.fs  # noqa: B018  Imports the protocol's package.
    except ImportError as error:
        raise ValueError(f"{protocol}:// needs a missing package: {error}") from error
    return cast(Path, path)


def is_local(path: Path) -> bool:
    """Return whether a location is on a local or mounted disk."""
    return isinstance(path, Path)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a local file to write to; it becomes `path` when the block ends without an error.

    Raises DiskFullError.
    """
    with raise_if_disk_full(path if is_local(path) else Path(tempfile.gettempdir())):
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = _unfinished(path)
        else:
            handle, name = tempfile.mkstemp(suffix=f"-{path.name}")
            os.close(handle)
            unfinished = Path(name)
        try:
            yield unfinished
            if is_local(path):
                os.replace(unfinished, path)
            else:
                options = {"chunksize": _PART_BYTES} if _remote(path).protocol == "s3" else {}
                _remote(path).fs.put_file(str(unfinished), _remote(path).path, **options)
        finally:
            unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """Return a unique temporary name in the folder of `path`.

    A process id is not unique: containers on several machines have the same ids, and a process
    that lost its connection may still write while another repeats its work.
    """
    return path.with_name(f".{path.name}.{secrets.randbelow(10**15)}.tmp")


@contextmanager
def open_for_arrow(path: Path) -> Iterator[Path | IO[bytes]]:
    """Yield the file in a form that Arrow reads: a local path, or a stream of a remote file."""
    if is_local(path):
        yield path
        return
    # Arrow requests exactly the byte ranges that it needs, so a read cache would only cost.
    with _remote(path).fs.open(_remote(path).path, "rb", cache_type="none") as stream:
        yield stream


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Return `length` bytes of a file, from `offset` on."""
    if not is_local(path):
        return _remote(path).fs.cat_file(_remote(path).path, start=offset, end=offset + length)
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def existing_files(folder: Path, names: Collection[str]) -> set[str]:
    """Return those of `names` (relative to `folder`) that exist as files.

    Lists a remote folder once, because one request per name would be slow.
    """
    if is_local(folder):
        return {name for name in names if (folder / name).is_file()}
    return set(names) & file_names(folder) if names else set()


def file_names(folder: Path) -> set[str]:
    """Return the names of all files in a folder and its subfolders, relative to the folder."""
    if is_local(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix() for path in files}
    prefix = f"{_remote(folder).path}/"
    names = _remote(folder).fs.find(_remote(folder).path)
    return {name.removeprefix(prefix) for name in names}


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill with `atomic_file`; it counts as `folder` when the block ends without
    an error (see `complete_folders`). Several workers may write one folder at the same time."""
    if not is_local(folder):
        yield folder
        with atomic_file(folder / _COMPLETE):
            pass
        return
    unfinished = _unfinished(folder)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # Free the space: the disk may be full.
        raise
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another worker finished the same folder first; it holds the same rows.
        shutil.rmtree(unfinished)


def complete_folders(parent: Path, names: Collection[str]) -> set[str]:
    """Return those of `names` that `atomic_folder` completed in `parent`."""
    if is_local(parent):
        return {name for name in names if (parent / name).is_dir()}
    marks = {f"{name}/{_COMPLETE}": name for name in names}
    return {marks[mark] for mark in existing_files(parent, marks)}


def remove_folder(folder: Path) -> None:
    """Remove a folder and its content, if it exists."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        _remote(folder).fs.rm(_remote(folder).path, recursive=True)


@contextmanager
def uploaded_folder(folder: Path) -> Iterator[Path]:
    """Yield a local folder to write any files to; the block's end uploads them to `folder`.

    Raises DiskFullError.
    """
    if is_local(folder):
        with raise_if_disk_full(folder):
            yield folder
        return
    with tempfile.TemporaryDirectory() as name, raise_if_disk_full(Path(name)):
        yield Path(name)
        files = sorted(path for path in Path(name).rglob("*") if path.is_file())
        targets = [_remote(folder / path.relative_to(name).as_posix()).path for path in files]
        _remote(folder).fs.put([str(path) for path in files], targets)


@contextmanager
def downloaded_files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a local folder that holds these files of `folder`. Raises DiskFullError."""
    if is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as name, raise_if_disk_full(Path(name)):
        targets = [Path(name) / file for file in names]
        for path in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
        remote = [_remote(folder / file).path for file in names]
        _remote(folder).fs.get(remote, [str(path) for path in targets])
        yield Path(name)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder`, reachable from all machines; remove it afterwards."""
    if is_local(folder):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            yield Path(name)
        return
    temporary = folder / f".scratch-{secrets.token_hex(8)}"
    try:
        yield temporary
    finally:
        remove_folder(temporary)


def _remote(path: Path) -> UPath:
    return cast("UPath", path)
