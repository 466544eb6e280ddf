"""What goes wrong on a cluster, done on purpose, and the runs that it happens to."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.infra.clusters import Running, named, running
from tests.waiting import wait_until
from tests.workflows.runs import SMALL

SETTINGS = (
    "data.count=120",
    *SMALL,
    "capture.shards=12",
    "cluster.actors=3",
    "explain.neurons_per_task=2",
)
QUICK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""How soon Ray takes a node that does not answer for dead: seconds, where it is half a minute."""
MOMENTS = {"capture": "ray::SubjectActor", "explain": "ray::explain_part"}
"""What the processes that do the work of a stage call themselves while they do it. In the middle of
capture every actor has a shard; its name is also that of the question how far it is."""


@dataclass(frozen=True)
class Nodes:
    """A local cluster that a test may harm."""

    held: Running

    @property
    def environment(self) -> dict[str, str]:
        """For a driver that joins it."""
        line = next(line for line in self.held.said().splitlines() if "ray-token" in line)
        (raylet, *_) = named(self.held.processes(), "/raylet/raylet")
        address = re.findall(r"--gcs-address=(\S+)", " ".join(raylet.cmdline()))[0]
        token = line.split()[1]
        return {
            "RAY_ADDRESS": address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": token,
            # Or Ray would look for loopback's address at another of this machine's.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }


@contextmanager
def three_nodes(folder: Path) -> Iterator[Nodes]:
    """Three real Ray nodes of one core each."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.infra.held_cluster", "3"]
    with running(command, folder / "cluster.log", **QUICK) as held:
        held.run_until(lambda: "ray-token" in held.said())
        yield Nodes(held)


def atlas(out: Path, *settings: str, without: str = "") -> list[str]:
    """The program's command; without: the protection that is taken from it."""
    module = (
        ["tests.workflows.faults.unprotected", without]
        if without
        else ["neuron_atlas.workflows.atlas"]
    )
    return [sys.executable, "-m", *module, *SETTINGS, *settings, f"out={out}"]


def parts(out: Path, stage: str) -> list[Path]:
    """The finished shards of capture, or the finished parts of explain."""
    pattern = {"capture": "capture/*/shards/shard-*", "explain": "explain/*/explanations-*"}[stage]
    return sorted(out.glob(f"artifacts/{pattern}"))


def wait_for_the_middle(run: Running, out: Path, stage: str) -> None:
    """Until some of a stage's parts are finished, and by far not all."""
    run.run_until(lambda: len(parts(out, stage)) >= 2)


def kill_worker(nodes: Nodes, stage: str) -> None:
    """SIGKILL a process that is in the middle of a stage's work."""
    _frozen_at_work(nodes, stage, lambda process: True).kill()


def kill_node(nodes: Nodes, stage: str) -> None:
    """SIGKILL all of a node, not the head, on which a stage's work is being done."""
    raylets = {
        raylet.pid: raylet
        for raylet in named(nodes.held.processes(), "/raylet/raylet")
        if "--head" not in raylet.cmdline()
    }
    worker = _frozen_at_work(nodes, stage, lambda process: process.ppid() in raylets)
    raylet = raylets[worker.ppid()]
    for process in [raylet, *raylet.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _frozen_at_work(
    nodes: Nodes, stage: str, suits: Callable[[psutil.Process], bool]
) -> psutil.Process:
    """A process that is at a stage's work, and stopped, so that it still is when it is killed."""

    def frozen() -> psutil.Process | None:
        for process in named(nodes.held.processes(), MOMENTS[stage]):
            with suppress(psutil.NoSuchProcess):
                if not suits(process):
                    continue
                process.send_signal(signal.SIGSTOP)
                if named([process], MOMENTS[stage]):
                    return process
                process.send_signal(signal.SIGCONT)
        return None

    found = wait_until(frozen, every_s=0.005)
    assert found is not None
    return found
