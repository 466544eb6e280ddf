"""What was asked and what was answered, on disk, so that nothing is paid for twice.

A call is journaled as an intent before it is sent and settled with its answer afterwards. Whoever
finds an intent without an answer knows that the provider may have billed a call whose answer was
lost; it is counted, and the request may be sent again.

Neither keys nor requests are written here: only the hash of a request, the model's name, and the
answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")

_BUSY_TIMEOUT_S = 30.0
_LAYOUT = """
CREATE TABLE IF NOT EXISTS requests (
    request_hash TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    open_intents INTEGER NOT NULL,  -- begun, and neither answered nor known to be unbilled
    intended_at REAL NOT NULL,      -- s since 1970, the latest
    answer TEXT,                    -- JSON; null until answered
    settled_at REAL
)
"""


class Journal(Protocol):
    """Remembers calls by the hash of their request.

    Arguments and results are strings and integers, so that a proxy can forward each method to a
    journal that lives in another process.
    """

    async def answer(self, request_hash: str) -> str | None:
        """The settled answer (JSON) to this request, or None."""

    async def intend(self, request_hash: str, model: str) -> None:
        """Note that a call is about to be sent. Returns once that would survive a crash."""

    async def withdraw(self, request_hash: str) -> None:
        """Take one intent back: the provider turned the call down, so nothing was billed."""

    async def settle(self, request_hash: str, answer: str) -> None:
        """Keep the answer (JSON) to an intended call for ever; the first one stays.

        Returns once it would survive a crash. Raises KeyError where nothing was intended.
        """

    async def unsettled(self) -> int:
        """Calls that were begun, not answered and not withdrawn: they may have been billed."""


class NoJournal:
    """Remembers nothing."""

    async def answer(self, request_hash: str) -> str | None:
        """Never an answer."""
        return None

    async def intend(self, request_hash: str, model: str) -> None:
        """Forget it."""

    async def withdraw(self, request_hash: str) -> None:
        """Forget it."""

    async def settle(self, request_hash: str, answer: str) -> None:
        """Forget it."""

    async def unsettled(self) -> int:
        """Nothing is remembered, so nothing is open."""
        return 0


class SqliteJournal:
    """A journal in one SQLite file: write-ahead log, every write synced to the disk.

    All statements run on one thread of its own, so it may be used from any thread and any event
    loop, and waiting for the disk holds up neither. The file belongs on a local disk: SQLite's
    write-ahead log does not work on network file systems.
    """

    def __init__(self, path: Path | str) -> None:
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._database = self._writer.submit(_open, Path(path)).result()

    async def answer(self, request_hash: str) -> str | None:
        """See `Journal`."""
        return await self._run(_answer, request_hash)

    async def intend(self, request_hash: str, model: str) -> None:
        """See `Journal`."""
        await self._run(_intend, request_hash, model)

    async def withdraw(self, request_hash: str) -> None:
        """See `Journal`."""
        await self._run(_withdraw, request_hash)

    async def settle(self, request_hash: str, answer: str) -> None:
        """See `Journal`."""
        await self._run(_settle, request_hash, answer)

    async def unsettled(self) -> int:
        """See `Journal`."""
        return await self._run(_unsettled)

    def close(self) -> None:
        """Finish what is under way and close the file."""
        self._writer.submit(self._database.close).result()
        self._writer.shutdown()

    async def _run(self, statement: Callable[..., T], *arguments: str) -> T:
        work = partial(statement, self._database, *arguments)
        # Shielded: an answer that has been paid for is kept even if its asker is cancelled now.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writer, work))


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(_LAYOUT)
    return database


def _answer(database: sqlite3.Connection, request_hash: str) -> str | None:
    row = database.execute(
        "SELECT answer FROM requests WHERE request_hash = ?", (request_hash,)
    ).fetchone()
    return row[0] if row else None


def _intend(database: sqlite3.Connection, request_hash: str, model: str) -> None:
    database.execute(
        "INSERT INTO requests (request_hash, model, open_intents, intended_at) VALUES (?, ?, 1, ?)"
        " ON CONFLICT (request_hash) DO UPDATE"
        " SET open_intents = open_intents + 1, intended_at = excluded.intended_at",
        (request_hash, model, time.time()),
    )


def _withdraw(database: sqlite3.Connection, request_hash: str) -> None:
    database.execute(
        "UPDATE requests SET open_intents = max(open_intents - 1, 0) WHERE request_hash = ?",
        (request_hash,),
    )


def _settle(database: sqlite3.Connection, request_hash: str, answer: str) -> None:
    settled = database.execute(
        "UPDATE requests SET answer = coalesce(answer, ?), settled_at = coalesce(settled_at, ?),"
        " open_intents = max(open_intents - 1, 0) WHERE request_hash = ?",
        (answer, time.time(), request_hash),
    )
    if settled.rowcount == 0:
        raise KeyError(f"request {request_hash} was answered without having been intended")


def _unsettled(database: sqlite3.Connection) -> int:
    row = database.execute("SELECT coalesce(sum(open_intents), 0) FROM requests").fetchone()
    return int(row[0])
