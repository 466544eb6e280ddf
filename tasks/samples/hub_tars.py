"""Read WebDataset shards: tar files whose members with one base name are one sample."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from neuron_atlas.tasks.samples.media import media_kind
from neuron_atlas.tasks.samples.rows import Row
from neuron_atlas.tasks.samples.source import SampleError, SourceError

SUFFIX = ".tar"
KEY_COLUMN = "__key__"
_TEXT_SUFFIXES = ("txt", "text", "caption")


@dataclass(frozen=True)
class TarSample:
    """One sample of a shard. row: its texts, by suffix of the member, and the fields of its JSON
    member. images: references."""

    row: Row
    images: tuple[str, ...]


@dataclass(frozen=True)
class TarShards:
    """Uncompressed shards of one split. paths: by name, such as "train/000.tar"."""

    paths: Mapping[str, Path]

    @property
    def fingerprint(self) -> str:
        """Digest of the shards' names, sizes and modification times."""
        stamps = [(name, *_stamp(path)) for name, path in self.paths.items()]
        return hashlib.sha256(repr(stamps).encode()).hexdigest()

    def samples(self, image_suffix: str | None) -> Iterator[TarSample]:
        """Yield the samples by shard, in the order of their first members.

        image_suffix: of the members that are images; None for all known suffixes. A shard that is
        damaged ends with a sample whose row has a problem. Raises SourceError if a shard cannot be
        opened at all.
        """
        for shard, path in self.paths.items():
            index = _index(path, *_stamp(path))
            samples: dict[str, list[tuple[str, str]]] = {}
            for member in index.members:
                key, suffix = _split(member)
                samples.setdefault(key, []).append((suffix, member))
            for key, members in samples.items():
                yield from _sample(shard, path, key, members, index, image_suffix)
            if index.problem:
                yield TarSample(Row({}, shard, index.problem), ())

    def read(self, reference: str) -> bytes:
        """Return the content of a member. Raises SampleError."""
        shard, _, member = reference.partition(f"{SUFFIX}/")
        path = self.paths.get(f"{shard}{SUFFIX}")
        if path is None:
            raise SampleError("missing", f"{reference!r} is not in a shard of this split")
        return _read(path, member)


def _sample(
    shard: str,
    path: Path,
    key: str,
    members: list[tuple[str, str]],
    index: _Index,
    image_suffix: str | None,
) -> Iterator[TarSample]:
    fields: dict[str, Any] = {}
    images = []
    problem = ""
    for suffix, member in members:
        last = suffix.rpartition(".")[2].lower()
        is_image = media_kind(member) == "image" if image_suffix is None else suffix == image_suffix
        if is_image:
            images.append(f"{shard}/{member}")
        elif last in _TEXT_SUFFIXES or last == "json":
            try:
                fields = _fields(suffix, last, _read(path, member)) | fields
            except (ValueError, RecursionError, SampleError) as error:
                problem = f"{member} cannot be read: {error}"
        elif media_kind(member):
            fields[suffix] = member
    if images or fields or problem:
        row = {KEY_COLUMN: f"{shard.removesuffix(SUFFIX)}/{key}"} | fields
        yield TarSample(Row(row, f"{shard}/{key}", problem), tuple(images))


def _fields(suffix: str, last: str, content: bytes) -> dict[str, Any]:
    """Return a text by its suffix, such as "en.txt", and by the last part of it; or JSON fields."""
    text = content.decode("utf-8-sig")
    value = json.loads(text) if last == "json" else text.strip()
    return value if isinstance(value, dict) else {suffix: value, last: value}


def _split(member: str) -> tuple[str, str]:
    """Return a member's path up to the first dot of its name, and what follows the dot."""
    folder, slash, name = member.rpartition("/")
    stem, _, suffix = name.partition(".")
    return f"{folder}{slash}{stem}", suffix


def _read(path: Path, member: str) -> bytes:
    place = _index(path, *_stamp(path)).members.get(member)
    if place is None:
        raise SampleError("missing", f"{member!r} is not in {path.name}")
    start, size = place
    with path.open("rb") as shard:
        shard.seek(start)
        content = shard.read(size)
    if len(content) < size:
        raise SampleError("unreadable", f"{path.name} ends within {member!r}; download it again")
    return content


@dataclass(frozen=True)
class _Index:
    """Where the members of a shard are: first byte and number of bytes. problem: why the index may
    be incomplete."""

    members: Mapping[str, tuple[int, int]]
    problem: str = ""


# Images are opened one by one, so each process keeps the indexes of the shards it reads.
@lru_cache(maxsize=64)
def _index(path: Path, size: int, modified_ns: int) -> _Index:
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            try:
                for member in shard:
                    if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
                        members[member.name] = (member.offset_data, member.size)
            except tarfile.TarError as error:
                return _Index(members, _damaged(str(error)))
            end = shard.offset
    except (tarfile.TarError, OSError) as error:
        raise SourceError(
            f"{path}: not an uncompressed tar file ({error}); unpack it if it is compressed, or "
            "download it again"
        ) from error
    with path.open("rb") as file:
        # The library ends at a broken header as at the end of the file.
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    return _Index(members, _damaged("invalid header") if any(block) else "")


def _damaged(error: str) -> str:
    return f"the shard is damaged, and samples may be missing ({error}); download it again"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
    return stat.st_size, stat.st_mtime_ns
