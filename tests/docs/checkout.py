"""A folder that looks like the checkout of a user who follows the documentation."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.docs.blocks import Block
from tests.waiting import wait_until
from tests.workflows.runs import ROOT

SMALL = (
    "data.count=48",
    "describe=given",
    "capture.top_n=12",
    "evidence.random_samples=12",
    "explain.neurons.per_layer_and_type=2",
    "score.resamples=100",
    "steering.neurons_per_type=1",
    "report.neurons_per_type=2",
    "cluster.cpus=2",
    "cluster.actors=1",
)
"""Added to every run unless the command sets the same thing."""

_PROGRAM = """#!/bin/bash
small=()
for setting in {small}; do
  [[ $setting == data.* && " $*" == *" data="* ]] && continue
  [[ " $*" == *" ${{setting%%=*}}="* ]] || small+=("$setting")
done
export PYTHONPATH="$PYTHONPATH:{sources}"
exec {python} -m neuron_atlas.workflows.atlas "$@" "${{small[@]}}"
"""


@dataclass(frozen=True)
class Checkout:
    """The folder, with links to everything in the repository, and the programs on its PATH.

    The programs are those of the tests' environment, but `neuron-atlas` works on little data.
    """

    folder: Path

    @property
    def _environment(self) -> dict[str, str]:
        bin_ = self.folder / ".venv" / "bin"
        return os.environ | {
            "PATH": os.pathsep.join([str(bin_), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "src"),
            "HOME": str(self.folder),
            "NO_COLOR": "1",
        }

    def run(self, block: Block, *before: Block) -> None:
        """Run a block; `before`: Python blocks of the same page that it goes on from."""
        if block.option == "file":
            path = self.folder / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            return
        text = "".join(one.text for one in (*before, block))
        program = (
            ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["python", "-c"]
        )
        ended = subprocess.run(
            [*program, text],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{block}\n{text}\n{ended.stdout}\n{ended.stderr}"

    def serve(self, block: Block) -> None:
        """Run a block until something listens on the port that it names, and end it."""
        port = int(block.value)
        if _listens(port):
            pytest.skip(f"port {port} is in use on this machine")
        log = self.folder / "server.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=self.folder,
                env=self._environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: _listens(port),
                is_alive=lambda: process.poll() is None,
                log=lambda: f"{block}\n{log.read_text(encoding='utf-8')}",
            )
        finally:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):  # It ended by itself.
                started = psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGKILL)
                psutil.wait_procs(started)
            process.wait()


def make_checkout(folder: Path) -> Checkout:
    """Make the folder."""
    for path in ROOT.iterdir():
        if path.name == "bench":  # Benchmarks write there.
            shutil.copytree(path, folder / path.name)
        elif not path.name.startswith((".", "out")):
            (folder / path.name).symlink_to(path)
    theirs = Path(sys.executable).parent
    ours = folder / ".venv" / "bin"
    ours.mkdir(parents=True)
    (ours.parent / ".ready").touch()  # `make` installs nothing.
    for path in theirs.iterdir():
        if not path.name.startswith("python") and path.name != "neuron-atlas":
            (ours / path.name).symlink_to(path)
    program = _PROGRAM.format(small=" ".join(SMALL), python=sys.executable, sources=ROOT / "src")
    for name, text in {
        "neuron-atlas": program,
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
    }.items():
        (ours / name).write_text(text, encoding="utf-8")
        (ours / name).chmod(0o755)
    return Checkout(folder)


def copy_checkout(checkout: Checkout, folder: Path) -> Checkout:
    """Copy a checkout and what was run in it, so that what follows does not change it."""
    shutil.copytree(checkout.folder, folder, symlinks=True, dirs_exist_ok=True)
    return Checkout(folder)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
