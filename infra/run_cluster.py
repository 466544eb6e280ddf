"""Run neuron-atlas on a Ray cluster: the one that RAY_ADDRESS names, or one made here of several
nodes, behind a token of its own, that is stopped afterwards.

    python -m infra.run_cluster --nodes 3 -- experiment=demo out=out/demo
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Read by Ray when it is imported. Whoever reached a node could run code on this machine: so every
# process of the cluster wants the token.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not os.environ.get("RAY_ADDRESS"):
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

from ray.cluster_utils import Cluster


def main() -> None:
    """Exit with the status of the run."""
    parser = argparse.ArgumentParser(description="Run neuron-atlas on a Ray cluster.")
    parser.add_argument("--nodes", type=int, default=3, help="of the cluster that is made here")
    parser.add_argument("settings", nargs="*", help="of neuron-atlas, after --")
    options = parser.parse_args()
    if os.environ.get("RAY_ADDRESS"):
        sys.exit(_run(options.settings, os.environ["RAY_ADDRESS"]))
    with local_cluster(options.nodes) as address:
        sys.exit(_run(options.settings, address))


@contextmanager
def local_cluster(nodes: int) -> Iterator[str]:
    """A cluster of several real Ray nodes on this machine, which share its cores; its address."""
    cores = max(1, (os.cpu_count() or 1) // nodes)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=cores)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def _run(settings: Sequence[str], address: str) -> int:
    command = [sys.executable, "-m", "workflows.atlas", *settings]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    main()
