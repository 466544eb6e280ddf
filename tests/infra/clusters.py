"""Run-cluster as a program of its own, and what its cluster shows to others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.waiting import PATIENCE_S, wait_for_end, wait_until
from tests.workflows.runs import ROOT

MARK = "NEURON_ATLAS_TEST"
"""A variable by which a process and all that it started is known."""


@dataclass(frozen=True)
class Running:
    """A program that runs, and every process that inherited its environment."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def run_until(self, reached: Callable[[], object]) -> None:
        wait_until(reached, is_alive=lambda: self.process.poll() is None, log=self.said)

    def end(self) -> int:
        return wait_for_end(self.process, self.said)

    def processes(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if environment(one).get(MARK) == self.mark]

    def wait_for_nothing_left(self) -> list[psutil.Process]:
        """What is left of it once it had time to end."""
        deadline = time.monotonic() + PATIENCE_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left


def environment(process: psutil.Process) -> dict[str, str]:
    """A process' environment, as far as it may be known."""
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except psutil.Error:
        return {}


def named(processes: list[psutil.Process], word: str) -> list[psutil.Process]:
    """Those whose command line has the word."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found


@contextmanager
def running(command: list[str], log: Path, **environ: str) -> Iterator[Running]:
    """Start a program; nothing of it outlives this."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=_environment() | environ | {MARK: mark},
        )
    started = Running(process, log, mark)
    try:
        yield started
    finally:
        for left in started.processes():
            with suppress(psutil.Error):
                left.kill()
        process.wait()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return kept | {"PYTHONPATH": paths, "NO_PROXY": "127.0.0.1,localhost"}


def run_cluster(nodes: int, *settings: str) -> list[str]:
    """The command of `make run-cluster`."""
    return [
        sys.executable,
        "-m",
        "neuron_atlas.infra.run_cluster",
        "--nodes",
        str(nodes),
        "--",
        *settings,
    ]
