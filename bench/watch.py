"""Watch a process and its children, and the files that they write."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_MEMORY_EVERY_S = 0.5
_FILES_EVERY_S = 2.0


@dataclass(frozen=True)
class MemorySample:
    """Memory at one time, bytes. largest: of the process with the most resident memory. total:
    of all processes, without the pages that they share."""

    time: float
    largest: int
    total: int


@dataclass
class Watch:
    """Memory over time, and the size of each file ever seen.

    files: bytes by the path relative to the watched folder and the file's inode. A file that is
    written again has a new inode, so both versions count. Files that exist for less than two
    seconds may be missed.
    """

    memory: list[MemorySample] = field(default_factory=list)
    files: dict[tuple[str, int], int] = field(default_factory=dict)

    def peak(self, start: float, stop: float) -> tuple[int, int]:
        """Return the peaks of `largest` and `total` between two times."""
        within = [one for one in self.memory if start <= one.time <= stop]
        return (
            max((one.largest for one in within), default=0),
            max((one.total for one in within), default=0),
        )


@contextmanager
def watching(pid: int, folder: Path) -> Iterator[Watch]:
    """Watch the process `pid` with its children, and the files in `folder`, during the block."""
    watch, ended = Watch(), threading.Event()
    thread = threading.Thread(target=_watch, args=(watch, pid, folder, ended), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        _see_files(watch, folder)


def _watch(watch: Watch, pid: int, folder: Path, ended: threading.Event) -> None:
    looked_at = 0.0
    while not ended.wait(_MEMORY_EVERY_S):
        watch.memory.append(_see_memory(pid))
        if time.monotonic() - looked_at > _FILES_EVERY_S:
            _see_files(watch, folder)
            looked_at = time.monotonic()


def _see_memory(pid: int) -> MemorySample:
    largest = total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                largest = max(largest, memory.rss)
                total += memory.rss - getattr(memory, "shared", 0)
    return MemorySample(time.time(), largest, total)


def _see_files(watch: Watch, folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with suppress(FileNotFoundError):
                status = os.stat(path)
                key = (_final_name(os.path.relpath(path, folder)), status.st_ino)
                watch.files[key] = max(watch.files.get(key, 0), status.st_size)


def _final_name(path: str) -> str:
    """Return the path that a file under a temporary name will have once it is complete."""
    return "/".join(
        part[1:].rsplit(".", 2)[0] if part.startswith(".") and part.endswith(".tmp") else part
        for part in path.split(os.sep)
    )
