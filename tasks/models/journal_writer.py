"""The one thread that works on a journal's file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from neuron_atlas.tasks.artifacts.full_disk import DiskFull, full_disk
from neuron_atlas.tasks.models.journal_layout import open_database

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
_Work = tuple[Callable[[], Any], "Future[Any]"]

_GROUP = 512


class Writer:
    """One thread does all the work; what has come in meanwhile goes to the disk together.

    So work may come from any thread and any event loop, and waiting for the disk holds up neither.

    prepare: done first, with the open file; what it raises is raised here.
    """

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._write, args=(path, prepare, opened), name="journal", daemon=True
        )
        self._thread.start()
        opened.result()

    async def do(self, work: Callable[[], T]) -> T:
        """The result of some work within a transaction, once that is on the disk."""
        done: Future[T] = Future()
        self._work.put((work, done))
        # Shielded: an answer that has been paid for is kept even if its asker is cancelled now.
        return await asyncio.shield(asyncio.wrap_future(done))

    def close(self) -> None:
        """Finish what is under way and close the file."""
        self._work.put(None)
        self._thread.join()

    def _write(
        self, path: Path, prepare: Callable[[sqlite3.Connection], None], opened: Future[None]
    ) -> None:
        try:
            self._database = open_database(path)
            prepare(self._database)
        except BaseException as error:
            opened.set_exception(_told(error, path))
            return
        opened.set_result(None)
        while (work := self._work.get()) is not None:
            group = [work]
            while len(group) < _GROUP and not self._work.empty():
                more = self._work.get()
                if more is None:
                    self._work.put(None)
                    break
                group.append(more)
            self._commit(group, path)
        self._database.close()

    def _commit(self, group: list[_Work], path: Path) -> None:
        """Do the work of a group, then let its askers know: what they hear of is on the disk."""
        results: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for work, done in group:
                try:
                    results.append((done, work(), None))
                except sqlite3.Error:
                    raise
                except Exception as error:  # Of one piece of work, which harms nobody else's.
                    results.append((done, None, error))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            told: Exception = _told(error, path)
            results = [(done, None, told) for _, done in group]
        for done, value, failure in results:
            if not done.set_running_or_notify_cancel():
                continue
            if failure is None:
                done.set_result(value)
            else:
                done.set_exception(failure)


def _told(error: E, path: Path) -> E | DiskFull:
    """DiskFull where that is why SQLite failed, and the error itself otherwise."""
    if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return DiskFull(full_disk(path))
    return error
