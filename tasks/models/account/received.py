"""A crash log of answers: files where callers store an answer before the account has it.

The account is another process, and either may be killed between an answer's arrival and its commit.
So a caller first appends the answer to a file of its own. The file is not synced: it survives the
process, not the machine. The account reads these files when it opens, and before it counts a call
as lost. A caller removes its file once the account has everything in it; the account removes the
files of dead callers when it closes. A caller opens its file for each answer, so one that is still
alive then begins a new file.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from neuron_atlas.tasks.models.account.messages import CallResult

_SPENT = ("status", "usd", "tokens_in", "tokens_out", "seconds")
_log = logging.getLogger(__name__)


def received_folder(ledger: Path | None, purpose: str) -> Path | None:
    """Return the folder of these files for the callers of one purpose; None for a ledger in
    memory."""
    return None if ledger is None else ledger.absolute().parent / "outbox" / purpose


def store_received(path: Path, result: CallResult) -> None:
    """Append an answer to a caller's file. Logs a warning if that fails."""
    call = {name: getattr(result, name) for name in ("call", "request_hash", "answer")}
    line = json.dumps(call | {"spent": {name: getattr(result, name) for name in _SPENT}})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, line.encode() + b"\n")
        finally:
            os.close(file)
    except OSError as error:
        _log.warning("could not store an answer in %s: %s", path, error)


class ReceivedFiles:
    """Reads the files of a folder for the account."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def unread(self) -> Iterator[CallResult]:
        """Yield the results added since the last call. An incomplete last line waits."""
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder else ():
            try:
                with path.open("rb") as stream:
                    stream.seek(self._read.get(path, 0))
                    lines = stream.read()
            except FileNotFoundError:
                continue  # The account has everything that was in it.
            complete = lines[: lines.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(complete)
            for line in complete.splitlines():
                try:
                    fields = json.loads(line)
                    yield CallResult(**fields.pop("spent"), **fields)
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # Cut off when the disk was full.

    def remove(self) -> None:
        """Remove the files that were read; their content must be committed."""
        for path in self._read:
            path.unlink(missing_ok=True)
