"""What the runs of one call log, kept in a file until all of it has arrived.

    out/tracking/<call>.jsonl    a line for each thing that is logged, in order, and one for each
                                 that has arrived

So a server that is down, now or in mid-run, and a program that is killed, cost no run its record:
a later call finds the file, and logs what is left of it.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

FOLDER = "tracking"
_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Entry:
    """One thing to log: of which run of the call (a name of ours), what, and when (s, epoch)."""

    run: str
    kind: str
    content: Mapping[str, Any]
    time: float


class Spool:
    """The file of one call, held by its process as long as it lives."""

    def __init__(self, path: Path, file: TextIO | None) -> None:
        self._path = path
        self._file = file
        self._lock = threading.Lock()
        self._waiting: deque[Entry] = deque()
        self.runs: dict[str, str] = {}
        """MLflow's id of each run that has begun there."""
        self.begun: dict[str, Entry] = {}
        """How each of them began."""
        self.ended: set[str] = set()
        """Those whose end was told."""
        self.last_time = 0.0
        """When the latest entry was told (s)."""

    @staticmethod
    def create(folder: Path) -> Spool:
        """A new one. Where no file can be written, what it is told is in memory only."""
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}{_SUFFIX}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8")
        except OSError:
            return Spool(path, None)
        _hold(file)
        return Spool(path, file)

    @staticmethod
    def left_in(folder: Path) -> Iterator[Spool]:
        """Those that processes left that live no more, the oldest first."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            try:
                file = path.open("r+", encoding="utf-8")
            except OSError:
                continue
            if not _hold(file) or not path.exists():
                file.close()
                continue
            spool = Spool(path, file)
            spool._read()
            yield spool

    @property
    def path(self) -> Path:
        """Where it lies, for people."""
        return self._path

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self, run: str, kind: str, content: Mapping[str, Any], when: float | None = None
    ) -> None:
        """Keep an entry, to be logged after those before it. when: in s, None for now."""
        entry = Entry(run, kind, content, time.time() if when is None else when)
        with self._lock:
            self._take(entry)
            line = {"run": run, "kind": kind, "content": content, "time": entry.time}
            self._write(line)

    def waiting(self) -> list[Entry]:
        """What has not arrived, in order."""
        with self._lock:
            return list(self._waiting)

    def first(self) -> Entry | None:
        """The entry that is to be logged next."""
        with self._lock:
            return self._waiting[0] if self._waiting else None

    def arrived(self) -> None:
        """The first entry has been logged."""
        with self._lock:
            self._waiting.popleft()
            self._write({"arrived": 1, "runs": self.runs})

    def close(self) -> None:
        """Let go of the file, and remove it if nothing waits."""
        with self._lock, suppress(OSError):
            if self._file is None:
                return
            if not self._waiting:
                self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
        with suppress(OSError):
            self._path.parent.rmdir()  # Only where no other is in it.

    def _take(self, entry: Entry) -> None:
        if entry.kind == "begin":
            self.begun[entry.run] = entry
        if entry.kind == "end":
            self.ended.add(entry.run)
        self.last_time = max(self.last_time, entry.time)
        self._waiting.append(entry)

    def _write(self, line: Mapping[str, Any]) -> None:
        # A full disk must not stop a run for the sake of its record.
        with suppress(OSError, ValueError):
            if self._file is not None:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()

    def _read(self) -> None:
        assert self._file is not None
        for text in self._file:
            try:
                line = json.loads(text)
            except ValueError:  # Its process was killed while it wrote the last line.
                continue
            if "arrived" in line:
                self.runs |= line["runs"]
                self._waiting.popleft()
            else:
                self._take(Entry(line["run"], line["kind"], line["content"], line["time"]))


def _hold(file: TextIO) -> bool:
    """Whether no living process holds the file; now this one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # A file system that has no locks.
    return True
