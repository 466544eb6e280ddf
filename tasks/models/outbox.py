"""Answers as they came in, kept by whoever asked until the journal has them.

The journal lives in another process, and between an answer's arrival and its commit either may be
killed. So whoever asks writes an answer to a file of its own first, which takes no more than the
system's buffers and outlives the process, though not the machine; the journal reads those files
when it opens, and before it gives a call up for lost.

Whoever asks removes its file at the end, if the journal has taken all that is in it. The files of
those that died are removed when the journal opens; the system's lock on a file tells who lives.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from neuron_atlas.tasks.models.journal import Spent

_log = logging.getLogger(__name__)


def outbox_folder(journal: Path, purpose: str) -> Path:
    """Where those who ask for one purpose keep what the journal in a file does not have yet."""
    return journal.absolute().with_name("outbox") / purpose


class Outbox:
    """The file of one who asks; made when there is something to put there."""

    def __init__(self, folder: Path | None, owner: str) -> None:
        self._path = None if folder is None else folder / f"{owner}.jsonl"
        self._file = -1
        self._undelivered: set[int] = set()

    def put(self, call: int, request_hash: str, answer: str, spent: Spent) -> None:
        """Keep the answer (JSON) to a call. Where that fails, only the journal will have it."""
        if self._path is None:
            return
        told = {"call": call, "request_hash": request_hash, "answer": answer}
        line = json.dumps(told | {"spent": asdict(spent)}).encode() + b"\n"
        self._undelivered.add(call)
        try:
            if self._file < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._file, line)
        except OSError as error:
            _log.warning("an answer could not be put into %s: %s", self._path, error)

    def delivered(self, call: int) -> None:
        """The journal has the answer to a call on the disk."""
        self._undelivered.discard(call)

    def close(self) -> None:
        """Nothing more comes; the file stays if there is an answer that the journal lacks."""
        if self._file < 0 or self._path is None:
            return
        if not self._undelivered:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1


@dataclass(frozen=True)
class Told:
    """What a line of an outbox says: the answer (JSON) to a call, and what it took."""

    call: int
    request_hash: str
    answer: str
    spent: Spent


class Outboxes:
    """All outboxes in a folder, as the journal reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def unread(self) -> Iterator[Told]:
        """What was put there since the last time. A line without its end is being written, or was
        when its writer died."""
        for path in sorted(self._folder.glob("*.jsonl")):
            try:
                with path.open("rb") as stream:
                    stream.seek(self._read.get(path, 0))
                    lines = stream.read()
            except FileNotFoundError:
                continue  # Its owner has delivered everything.
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                told = _told(line)
                if told is not None:
                    yield told

    def clear(self) -> None:
        """Remove the files of the dead; what `unread` told of them is on the disk."""
        for path in self._read:
            try:
                with path.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stream.seek(0, os.SEEK_END):  # Its owner locks before it writes.
                        path.unlink()
            except (FileNotFoundError, BlockingIOError):
                continue


def _told(line: bytes) -> Told | None:
    try:
        read = json.loads(line)
        return Told(read["call"], read["request_hash"], read["answer"], Spent(**read["spent"]))
    except (ValueError, KeyError, TypeError):
        return None  # Cut off, where the disk was full.
