"""A Ray cluster of several real nodes on this machine: on loopback, behind a token, gone with the
program that made it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.cluster.signals import keeping_sigterm
from neuron_atlas.workflows.cluster.start import start_with_retries
from neuron_atlas.workflows.run.errors import RunFailed

_SECONDS_TO_START = 120.0
_LOOPBACK = "127.0.0.1"
_STOP_WAIT_S = 600
"""What a job that is stopped has for its end: calls to a model under way may take two minutes."""


@contextmanager
def local_cluster(nodes: int) -> Iterator[str]:
    """Start `nodes` nodes that share this machine's cores; the address of their job server.

    Everything listens on loopback, and wants a token that is made for this cluster. Its processes
    inherit this one's environment, with the keys in it, and die with this one however it ends.
    Ray must not have been imported before: it reads its environment when it is.
    """
    with tempfile.TemporaryDirectory(prefix="neuron-atlas-") as folder:
        os.environ |= _environment(_token_file(Path(folder)))
        from ray.cluster_utils import Cluster

        cores = max(1, (os.cpu_count() or 1) // nodes)
        cluster = Cluster(shutdown_at_exit=True)
        try:
            with keeping_sigterm():
                _start(cluster, nodes, cores)
            yield f"http://{cluster.webui_url}"
        finally:
            cluster.shutdown()


def _start(cluster: Any, nodes: int, cores: int) -> None:
    """Raises RunFailed."""
    head = partial(
        cluster.add_node,
        num_cpus=cores,
        node_ip_address=_LOOPBACK,
        include_dashboard=True,
        dashboard_host=_LOOPBACK,
        dashboard_port=None,  # The first that is free, from 8265 on.
        dashboard_agent_listen_port=0,
        wait=False,
    )
    worker = partial(cluster.add_node, num_cpus=cores, node_ip_address=_LOOPBACK, wait=False)
    for add_node in [head, *[worker] * (nodes - 1)]:
        start_with_retries(add_node)
    try:
        cluster.wait_for_nodes(timeout=_SECONDS_TO_START)
    except TimeoutError as error:
        raise RunFailed(
            f"{nodes} Ray nodes did not start within {_SECONDS_TO_START:.0f} s; fewer (NODES) may "
            "fit on this machine"
        ) from error


def _token_file(folder: Path) -> Path:
    """A new token in a file that only this user reads, so that no command line shows it."""
    path = folder / "ray-token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), encoding="utf-8")
    return path


def _environment(token: Path) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_AUTH_TOKEN": "",  # It would go before the file.
        # Ray's name for it: 0 has its servers listen on loopback only.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S),
    }
