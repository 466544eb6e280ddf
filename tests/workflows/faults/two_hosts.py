"""Two hosts on one machine: network namespaces joined by a cable that can be pulled."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.infra.clusters import Running, running
from tests.workflows.faults.faults import QUICK

_HEAD, _WORKER = "10.77.0.1", "10.77.0.2"
_PORT = 6379
_RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class TwoHosts:
    """A head and a worker with a node of Ray each, of one core each.

    environment: for a driver on the head's host.
    """

    name: str
    head: Running
    worker: Running
    environment: dict[str, str]

    def on_the_head(self, command: list[str]) -> list[str]:
        """The command, on the head's host."""
        return _within(f"{self.name}-a", command)

    def cut_off(self) -> None:
        """No packet passes between the hosts any more."""
        _ip("-n", f"{self.name}-b", "link", "set", "cable-b", "down")

    def join_again(self) -> None:
        _ip("-n", f"{self.name}-b", "link", "set", "cable-b", "up")

    def nodes_begun(self) -> int:
        """How often a node of Ray was begun on the worker's host."""
        return self.worker.said().count("begins a node")


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Two namespaces, and Ray on both. Wants root and iproute2."""
    name = f"atlas-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": f"{_HEAD}:{_PORT}",
        **QUICK,
    }
    # Ray asks its own host for the head; without it `ray start` would take itself for a driver.
    of_nodes = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}
    with ExitStack() as opened:
        _cable(name, opened)
        common = ["--num-cpus=1", "--block", "--disable-usage-stats"]
        start_head = [
            *(_RAY, "start", "--head", f"--node-ip-address={_HEAD}", f"--port={_PORT}"),
            *("--include-dashboard=false", f"--temp-dir=/tmp/{name}", *common),
        ]
        head = opened.enter_context(
            running(_within(f"{name}-a", start_head), folder / "head.log", **of_nodes)
        )
        head.run_until(lambda: "Ray runtime started" in head.said())
        join = [
            *(_RAY, "start", f"--address={_HEAD}:{_PORT}", f"--node-ip-address={_WORKER}"),
            *common,
        ]
        # As a supervisor of services does it: a node that gave up is begun again.
        loop = f"while :; do echo begins a node; {' '.join(join)}; sleep 1; done"
        worker = opened.enter_context(
            running(_within(f"{name}-b", ["bash", "-c", loop]), folder / "worker.log", **of_nodes)
        )
        worker.run_until(lambda: "Ray runtime started" in worker.said())
        yield TwoHosts(name, head, worker, environment)


def _cable(name: str, opened: ExitStack) -> None:
    for end in "ab":
        _ip("netns", "add", f"{name}-{end}")
        opened.callback(_ip, "netns", "del", f"{name}-{end}")
    _ip("-n", f"{name}-a", "link", "add", "cable-a", "type", "veth", "peer", "name", "cable-b")
    _ip("-n", f"{name}-a", "link", "set", "cable-b", "netns", f"{name}-b")
    for end, address in (("a", _HEAD), ("b", _WORKER)):
        inside = ("-n", f"{name}-{end}")
        _ip(*inside, "addr", "add", f"{address}/24", "dev", f"cable-{end}")
        _ip(*inside, "link", "set", f"cable-{end}", "up")
        _ip(*inside, "link", "set", "lo", "up")


def _within(namespace: str, command: list[str]) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
