"""Start a Ray cluster with several real nodes on this machine: loopback only, with a token. It
stops with this process."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.cluster.machine import prepare_machine
from neuron_atlas.workflows.cluster.signals import preserve_sigterm
from neuron_atlas.workflows.cluster.start import start_with_retries
from neuron_atlas.workflows.run.errors import RunError

_START_TIMEOUT_S = 120.0
_LOOPBACK = "127.0.0.1"
_STOP_WAIT_S = 600
"""How long a stopped job may take to end: calls to a model in progress may take two minutes."""


@contextmanager
def local_cluster(nodes: int) -> Iterator[str]:
    """Start `nodes` nodes that share this machine's cores; yield the address of their job server.

    All servers listen on loopback and require a token created for this cluster. Its processes
    inherit this process's environment, including API keys, and end with this process. Do not
    import Ray before: it reads its environment on import. Raises RunError if the nodes do not
    start, and ConfigError if this machine has no temporary folder for them.
    """
    prepare_machine()
    with tempfile.TemporaryDirectory(prefix="neuron-atlas-") as folder:
        os.environ |= _environment(_token_file(Path(folder)))
        from ray.cluster_utils import Cluster

        cores = max(1, (os.cpu_count() or 1) // nodes)
        cluster = Cluster(shutdown_at_exit=True)
        try:
            with preserve_sigterm():
                _start(cluster, nodes, cores)
            yield f"http://{cluster.webui_url}"
        finally:
            cluster.shutdown()


def _start(cluster: Any, nodes: int, cores: int) -> None:
    """Start the head and the workers. Raises RunError."""
    head = partial(
        cluster.add_node,
        num_cpus=cores,
        node_ip_address=_LOOPBACK,
        include_dashboard=True,
        dashboard_host=_LOOPBACK,
        dashboard_port=None,  # The first free port from 8265 on.
        dashboard_agent_listen_port=0,
        wait=False,
    )
    worker = partial(cluster.add_node, num_cpus=cores, node_ip_address=_LOOPBACK, wait=False)
    for add_node in [head, *[worker] * (nodes - 1)]:
        start_with_retries(add_node)
    try:
        cluster.wait_for_nodes(timeout=_START_TIMEOUT_S)
    except TimeoutError as error:
        raise RunError(
            f"{nodes} Ray nodes did not start within {_START_TIMEOUT_S:.0f} s; try fewer (NODES)"
        ) from error


def _token_file(folder: Path) -> Path:
    """Write a new token to a file that only this user can read; command lines do not show it."""
    path = folder / "ray-token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), encoding="utf-8")
    return path


def _environment(token: Path) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_AUTH_TOKEN": "",  # A token here would take precedence over the file.
        # Despite its name: 0 makes Ray's servers listen on loopback only.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S),
    }
