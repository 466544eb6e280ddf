"""The program as a process of its own, to be watched and killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.waiting import wait_for_end, wait_until
from tests.workflows.runs import ROOT, command

_LOOK_EVERY_S = 0.005
_LOOK_FOR_THEIR_HEAD = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Of Ray; they do no work, and end a minute after the driver was killed."""


@dataclass(frozen=True)
class Program:
    """A running program and every process that it started, known by their session."""

    process: subprocess.Popen[bytes]
    log: Path

    def run_until(self, reached: Callable[[], bool]) -> None:
        """Let it run until `reached`, which must come before its end."""
        wait_until(
            reached,
            is_alive=lambda: self.process.poll() is None,
            log=self.said,
            every_s=_LOOK_EVERY_S,
        )

    def kill(self) -> None:
        """SIGKILL the driver, and wait until nothing of it is left."""
        self.process.kill()
        self.end()

    def terminate(self) -> int:
        """SIGTERM the driver; its exit status."""
        self.process.terminate()
        return self.end()

    def terminate_group(self) -> int:
        """SIGTERM the driver's process group, as `timeout` does; its exit status."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Wait for it and for what it started; its exit status."""
        status = wait_for_end(self.process, self.said)
        wait_until(lambda: not [each for each in self.processes() if _does_work(each)], every_s=0.1)
        return status

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def processes(self) -> list[psutil.Process]:
        """What still runs of it."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return (
                os.getsid(process.pid) == self.process.pid
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False


def _does_work(process: psutil.Process) -> bool:
    try:
        return process.name() not in _LOOK_FOR_THEIR_HEAD
    except psutil.NoSuchProcess:
        return False


@contextmanager
def program(log: Path, *overrides: str) -> Iterator[Program]:
    """Start the program in a session of its own; nothing of it outlives this."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(*overrides), cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True
        )
    started = Program(process, log)
    try:
        yield started
    finally:
        for left in started.processes():
            with suppress(psutil.NoSuchProcess):
                left.kill()
        process.wait()
