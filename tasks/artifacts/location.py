"""Where artifacts lie: a folder of this machine, or a prefix of an object store.

The annotation `Path` stands for both: a `UPath` is no `Path`, but reads, writes and joins as one.
What the two do differently is in this file. A local file appears under its name by a rename; an
object when its upload is complete; so neither is ever seen half-written.

An object store's credentials and address are those of the environment (AWS_ACCESS_KEY_ID ...,
AWS_ENDPOINT_URL); none is in a location, so none travels with one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from upath import UPath

from neuron_atlas.tasks.artifacts.full_disk import tell_if_full

_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Where an object appears only once it is whole. Not so on ssh or smb, which can be mounted."""
_IN_PARTS_OF = 16 * 2**20
"""Bytes. Larger files go to S3 in parts, several at once."""
_WHOLE = ".whole"


def is_uri(text: str) -> bool:
    """Whether this names a place by a protocol, such as s3://bucket/prefix."""
    return "://" in text


def location(text: str) -> Path:
    """A folder by its path, or a prefix by its URI. Raises ValueError with what is wrong."""
    if not is_uri(text):
        return Path(text)
    protocol, _, rest = text.partition("://")
    if protocol == "file":
        return Path(rest)
    if protocol not in _OBJECT_STORES:
        raise ValueError(
            f"{protocol}:// is no object store that is known ({', '.join(_OBJECT_STORES)}); mount "
            "it, and name the folder"
        )
    if not rest.strip("/"):
        raise ValueError(f"{text!r} names no bucket; write {protocol}://BUCKET/PREFIX")
    try:
        # What another machine has written since must be seen.
        place = UPath(text.rstrip("/"), use_listings_cache=False)
        place.fs  # noqa: B018  Imports what the protocol needs.
    except ImportError as error:
        raise ValueError(f"{protocol}:// needs a package that is not here: {error}") from error
    return cast(Path, place)


def is_local(place: Path) -> bool:
    """Whether it lies on a disk of this machine, or one that is mounted here."""
    return isinstance(place, Path)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A file of this machine to write to, that becomes `path` once this closes without an error.

    Raises DiskFull.
    """
    with tell_if_full(path if is_local(path) else Path(tempfile.gettempdir())):
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
                in_parts = {"chunksize": _IN_PARTS_OF} if _remote(path).protocol == "s3" else {}
                _remote(path).fs.put_file(str(unfinished), _remote(path).path, **in_parts)
        finally:
            unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """A name beside `path` that is nobody else's. A process' number would not do: containers on
    several machines have the same ones, and one that was cut off may still write what another
    does again."""
    return path.with_name(f".{path.name}.{secrets.randbelow(10**15)}.tmp")


@contextmanager
def reading(path: Path) -> Iterator[Path | IO[bytes]]:
    """What Arrow can read a file from: the path itself, or a stream of what lies elsewhere."""
    if is_local(path):
        yield path
        return
    # Arrow knows what it will read, and asks for all of it at once.
    with _remote(path).fs.open(_remote(path).path, "rb", cache_type="none") as stream:
        yield stream


def read_stretch(path: Path, offset: int, length: int) -> bytes:
    """Some bytes of a file."""
    if not is_local(path):
        return _remote(path).fs.cat_file(_remote(path).path, start=offset, end=offset + length)
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def present(folder: Path, names: Collection[str]) -> set[str]:
    """Those of `names`, relative to the folder, that are whole files; one listing, not a question
    for each, where a question takes long."""
    if is_local(folder):
        return {name for name in names if (folder / name).is_file()}
    return set(names) & file_names(folder) if names else set()


def file_names(folder: Path) -> set[str]:
    """The names, relative to the folder, of all files in it and below."""
    if is_local(folder):
        found = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix() for path in found}
    prefix = f"{_remote(folder).path}/"
    names = _remote(folder).fs.find(_remote(folder).path)
    return {name.removeprefix(prefix) for name in names}


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """A folder to write files to with `writing`, that is taken for `folder` once this closes
    without an error (see `whole_folders`). Another may deliver the same meanwhile."""
    if not is_local(folder):
        yield folder
        with writing(folder / _WHOLE):
            pass
        return
    unfinished = _unfinished(folder)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # Its room is needed, where a disk is full.
        raise
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another worker delivered the same first: theirs holds the same rows.
        shutil.rmtree(unfinished)


def whole_folders(parent: Path, names: Collection[str]) -> set[str]:
    """Those of `names` that `writing_folder` delivered into a folder."""
    if is_local(parent):
        return {name for name in names if (parent / name).is_dir()}
    marks = {f"{name}/{_WHOLE}": name for name in names}
    return {marks[mark] for mark in present(parent, marks)}


def remove_folder(folder: Path) -> None:
    """Remove a folder and all that is in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        _remote(folder).fs.rm(_remote(folder).path, recursive=True)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A folder of this machine to write any files to, which are in `folder` once this closes."""
    if is_local(folder):
        with tell_if_full(folder):
            yield folder
        return
    with tempfile.TemporaryDirectory() as name, tell_if_full(Path(name)):
        yield Path(name)
        files = sorted(path for path in Path(name).rglob("*") if path.is_file())
        into = [_remote(folder / path.relative_to(name).as_posix()).path for path in files]
        _remote(folder).fs.put([str(path) for path in files], into)


@contextmanager
def fetched(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder of this machine with these files of `folder`."""
    if is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as name, tell_if_full(Path(name)):
        into = [Path(name) / file for file in names]
        for path in into:
            path.parent.mkdir(parents=True, exist_ok=True)
        remote = [_remote(folder / file).path for file in names]
        _remote(folder).fs.get(remote, [str(path) for path in into])
        yield Path(name)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder within `folder`, which all machines reach, for as long as it is open."""
    if is_local(folder):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            yield Path(name)
        return
    place = folder / f".scratch-{secrets.token_hex(8)}"
    try:
        yield place
    finally:
        remove_folder(place)


def _remote(place: Path) -> UPath:
    return cast(UPath, place)
