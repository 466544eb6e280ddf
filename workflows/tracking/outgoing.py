"""On their way to MLflow: what is logged is sent in order by a thread of its own.

It holds up no work. While MLflow cannot be reached it is tried again now and then; what has not
arrived when the program ends stays in its file, and the next call logs it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.tracking.address import (
    hide_password,
    set_defaults,
    tracking_uri,
    without_password,
)
from neuron_atlas.workflows.tracking.delivery import Delivery, is_refused
from neuron_atlas.workflows.tracking.spool import FOLDER, Spool

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 60.0
_LONGEST_REASON = 160
_LATELY_S = 30.0
"""A program that ends does not try once more what has failed within this time."""


class Outgoing:
    """The record of one call: of its run, or of a sweep and all its runs."""

    def __init__(self, out: Path) -> None:
        set_defaults()
        self._uri = tracking_uri(out)
        self.shown_uri = without_password(self._uri)
        self._out = out
        self._spool = Spool.create(out / FOLDER)
        self._delivery = Delivery(self._uri)
        self._change = threading.Condition()
        self._is_closing = False
        self._failed_at: float | None = None
        self._reason = ""
        # Making a new database takes seconds, in which the first stage can already run.
        self._worker = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._worker.start()

    def log(self, run: str, kind: str, content: Mapping[str, Any]) -> None:
        """Log an entry of a run in the background."""
        with self._change:
            self._spool.add(run, kind, content)
            self._change.notify_all()

    def close(self) -> None:
        """Wait until all has arrived, or does not; say what has not."""
        with self._change:
            self._is_closing = True
            self._change.notify_all()
        self._worker.join()
        left = len(self._spool)
        self._spool.close()
        if left:
            say(
                f"mlflow     not logged: {self._reason}; it waits in {self._spool.path}, and the "
                f"next call, or neuron-atlas-log {self._out}, logs it"
            )

    def _work(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while (entry := self._next()) is not None:
            try:
                self._delivery.deliver(entry, self._spool)
            except Exception as failure:  # Whatever a tracking server does, the run goes on.
                reason = first_line(failure, self._uri)
                if is_refused(entry, failure):
                    say(f"mlflow     will not log {entry.kind}: {reason}")
                    self._spool.arrived()
                else:
                    self._wait_after(reason, pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self._spool.arrived()
            if self._failed_at is not None:
                say("mlflow     can be reached again")
                self._failed_at, pause_s = None, _FIRST_PAUSE_S
            if entry.kind == "begin":
                self._log_what_was_left()

    def _next(self) -> Any:
        """The first entry that waits, once there is one; None at the end of all."""
        with self._change:
            while (entry := self._spool.first()) is None and not self._is_closing:
                self._change.wait()
            lately = self._failed_at is not None and time.monotonic() - self._failed_at < _LATELY_S
            return None if self._is_closing and lately else entry

    def _wait_after(self, reason: str, pause_s: float) -> None:
        """Say that MLflow is not there, and wait before it is tried again."""
        with self._change:
            if self._failed_at is None and not self._is_closing:
                say(f"mlflow     cannot be reached: {reason}; the run goes on, and is logged later")
            self._reason, self._failed_at = reason, time.monotonic()
            self._change.wait_for(lambda: self._is_closing, pause_s)

    def _log_what_was_left(self) -> None:
        """MLflow is there: so log what earlier calls in this folder could not."""
        try:
            logged = log_left(self._out, self._delivery)
        except Exception as failure:
            say(f"mlflow     of earlier runs not all is logged: {first_line(failure, self._uri)}")
        else:
            if logged:
                say(f"mlflow     {logged:,} earlier runs are logged now")


def log_left(out: Path, delivery: Delivery) -> int:
    """Log what calls that are over left in the folder; how many runs it was of.

    A run whose end nobody told was killed. Raises what MLflow raises; the rest then still waits.
    """
    logged = 0
    for spool in Spool.left_in(out / FOLDER):
        try:
            _log_whole(spool, delivery)
            logged += len(spool.begun)
        finally:
            spool.close()
    return logged


def _log_whole(spool: Spool, delivery: Delivery) -> None:
    last = spool.last_time
    for run in spool.begun:
        if run not in spool.ended:
            spool.add(run, "tags", {"error": "its program was killed"}, last)
            spool.add(run, "end", {"status": "KILLED"}, last)
    while (entry := spool.first()) is not None:
        try:
            delivery.deliver(entry, spool)
        except Exception as failure:
            if not is_refused(entry, failure):
                raise
        spool.arrived()


def first_line(failure: Exception, uri: str) -> str:
    """What went wrong, without a password, and no longer than a person reads."""
    lines = str(failure).strip().splitlines()
    line = hide_password(lines[0] if lines else repr(failure), uri)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} ..."
