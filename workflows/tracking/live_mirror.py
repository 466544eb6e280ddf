"""Mirror active runs to a tracking server in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.tracking.address import DeletedExperimentError, safe_first_line
from neuron_atlas.workflows.tracking.mirror import Mirror

_INTERVAL_S = 5.0
_MAX_PAUSE_S = 60.0
_RECENT_S = 30.0
"""A closing mirror does not retry if the last failure is more recent than this."""


class LiveMirror:
    """Background thread that copies runs every few seconds until they have ended.

    earlier: ids of runs that ended before.
    """

    def __init__(self, mirror: Mirror, earlier: Iterable[str]) -> None:
        self._mirror = mirror
        self._unsent = list(earlier)
        self._wake = threading.Event()
        self._is_closing = False
        self._reason = ""
        self._failed_at = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def add(self, run_id: str) -> None:
        """Mirror another run, ahead of the runs so far."""
        self._unsent.insert(0, run_id)
        self._wake.set()

    def copy_of(self, run_id: str) -> tuple[str, str] | None:
        """Return `Mirror.copy_of`."""
        return self._mirror.copy_of(run_id)

    @property
    def reason(self) -> str:
        """Why the last copy failed; empty if it did not."""
        return self._reason

    def close(self) -> str:
        """Copy what is missing and stop; return why that failed, empty if the server has all."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()
        return self._reason

    def _work(self) -> None:
        pause_s = _INTERVAL_S
        while not self._is_closing:
            self._wake.clear()
            self._copy_all()
            pause_s = min(2 * pause_s, _MAX_PAUSE_S) if self._reason else _INTERVAL_S
            if not self._is_closing:
                self._wake.wait(pause_s)
        if not self._reason or time.monotonic() - self._failed_at > _RECENT_S:
            self._copy_all()

    def _copy_all(self) -> None:
        try:
            for run_id in list(self._unsent):
                if self._mirror.copy(run_id):
                    self._unsent.remove(run_id)
        except Exception as failure:  # No error of a tracking server may stop the run.
            reason = safe_first_line(failure, self._mirror.uri)
            if not self._reason and not self._is_closing:
                is_deleted = isinstance(failure, DeletedExperimentError)
                problem = reason if is_deleted else f"cannot be reached: {reason}"
                print_line(f"mlflow     {problem}; the run goes on and is sent later")
            self._reason, self._failed_at = reason, time.monotonic()
        else:
            if self._reason:
                print_line("mlflow     can be reached again")
            self._reason = ""
