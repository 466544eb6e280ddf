"""A crash log of answers: files where callers store an answer before the account has it.

The account is another process, and either may be killed between an answer's arrival and its commit.
So a caller first writes the answer to a file of its own. The file is not synced: it survives the
process, not the machine. The account reads these files when it opens, and before it counts a call
as lost. A caller removes its file at the end if the account has everything in it; the account
removes those of dead callers. A lock on a file shows that its caller is alive.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.models.account.messages import Result

_log = logging.getLogger(__name__)


def received_folder(ledger: Path | Literal[":memory:"], purpose: str) -> Path | None:
    """Return the folder of these files for the callers of one purpose; None for a ledger in
    memory."""
    return None if ledger == ":memory:" else Path(ledger).absolute().parent / "outbox" / purpose


class ReceivedFile:
    """The file of one caller; made when the first answer comes. folder: None stores nothing."""

    def __init__(self, folder: Path | None, owner: str) -> None:
        self._path = None if folder is None else folder / f"{owner}.jsonl"
        self._file = -1
        self._undelivered: set[int] = set()

    def add(self, result: Result) -> None:
        """Store an answer. Where that fails, only the account will have it."""
        if self._path is None or result.answer is None:
            return
        spent = {
            name: getattr(result, name)
            for name in ("status", "usd", "tokens_in", "tokens_out", "seconds")
        }
        call = {name: getattr(result, name) for name in ("call", "request_hash", "answer")}
        self._undelivered.add(result.call)
        try:
            if self._file < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._file, json.dumps(call | {"spent": spent}).encode() + b"\n")
        except OSError as error:
            _log.warning("could not store an answer in %s: %s", self._path, error)

    def delivered(self, call: int) -> None:
        """Note that the account has the answer to a call on disk."""
        self._undelivered.discard(call)

    def close(self) -> None:
        """Close the file, and remove it unless it holds an answer that the account lacks."""
        if self._file < 0 or self._path is None:
            return
        if not self._undelivered:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1


class ReceivedFiles:
    """All files of a folder, as the account reads them."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def unread(self) -> Iterator[Result]:
        """Yield what was added since the last time. An unfinished last line is left for later."""
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder else ():
            try:
                with path.open("rb") as stream:
                    stream.seek(self._read.get(path, 0))
                    lines = stream.read()
            except FileNotFoundError:
                continue  # Its caller has delivered everything.
            complete = lines[: lines.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(complete)
            for line in complete.splitlines():
                try:
                    fields = json.loads(line)
                    yield Result(**fields.pop("spent"), **fields)
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # Cut off when the disk was full.

    def remove_delivered(self) -> None:
        """Remove the files of dead callers; everything that was read must be on disk."""
        for path in self._read:
            try:
                with path.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stream.seek(0, os.SEEK_END):  # A caller locks its file before it writes.
                        path.unlink()
            except (FileNotFoundError, BlockingIOError):
                continue
