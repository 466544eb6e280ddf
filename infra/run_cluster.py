"""Run neuron-atlas as a Ray job and follow its log.

    python -m neuron_atlas.infra.run_cluster --nodes 3 -- experiment=demo out=out/demo

RAY_ADDRESS is the address of the cluster's job server (http://head:8265) or of the cluster itself
(head:6379). Without it, a cluster of several nodes is started on this machine, and stopped
afterwards. The exit status is that of the run: 0 for success, 1 for a failed run, 2 for a usage
error, 130 after Ctrl-C or SIGTERM, which let the run finish work in progress.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.infra.local_cluster import local_cluster
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.cluster.signals import stop_on_signals
from neuron_atlas.workflows.run.errors import INTERRUPTED, ConfigError, RunError

_PACKAGE = Path(__file__).parents[1]
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_STOP_WAIT_S = "600"
_NOT_UPLOADED = ["__pycache__", "*.env"]


def main() -> None:
    """Run the command line; exit with the status of the run."""
    options = _parser().parse_args()
    stop_on_signals()
    try:
        sys.exit(run_cluster(options.settings, options.nodes, os.environ.get("RAY_ADDRESS", "")))
    except ConfigError as error:
        print_line(f"run-cluster: {error}")
        sys.exit(2)
    except RunError as error:
        print_line(f"run-cluster: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        print_line(
            "run-cluster: interrupted; finished work is kept. Run the same command again to "
            "continue"
        )
        sys.exit(INTERRUPTED)


def run_cluster(settings: Sequence[str], nodes: int, address: str) -> int:
    """Run neuron-atlas with these settings as a job; return its exit status.

    address: of a cluster; "" starts one with `nodes` nodes on this machine. Raises ConfigError and
    RunError.
    """
    if nodes < 1:
        raise ConfigError(f"--nodes (NODES): must be at least 1, not {nodes}")
    refuse_secrets(settings, os.environ)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On this machine, the job uses the same Python interpreter as this process.
    entrypoint = (
        f"exec {shlex.quote(sys.executable)} -m neuron_atlas.workflows.atlas {shlex.join(settings)}"
    )
    if address:
        check_output_path(settings, address)
        remote = f"exec python -m neuron_atlas.workflows.atlas {shlex.join(settings)}"
        return _run_job(address, remote, _runtime_env())
    with local_cluster(nodes) as server:
        print_line(f"cluster    {nodes} Ray nodes on this machine")
        return _run_job(server, entrypoint, {})


def refuse_secrets(settings: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise ConfigError if a setting contains a secret of the environment.

    A job's command is visible to everyone with access to the cluster, and Ray stores it.
    """
    for name, value in environment.items():
        is_secret = len(value) >= 8 and name.upper().endswith(_SECRET_NAMES)
        if is_secret and any(value in setting for setting in settings):
            raise ConfigError(
                f"a setting contains the value of {name}, which everyone on the cluster could "
                "read; set it in the environment of the nodes instead"
            )


def check_output_path(settings: Sequence[str], address: str) -> None:
    """Raise ConfigError if `out` is a relative path: each node would write to its own disk."""
    out = next(
        (value for name, _, value in map(_split, reversed(settings)) if name == "out"), "out"
    )
    if not (out.startswith("/") or "://" in out):
        raise ConfigError(
            f"out={out} (OUT): must be an absolute path that all nodes of the cluster at "
            f"{address} share, or a URI such as s3://bucket/run"
        )


def _split(setting: str) -> tuple[str, str, str]:
    return setting.lstrip("+").partition("=")


def _runtime_env() -> dict[str, Any]:
    """Return the runtime environment that uploads this package; nodes need its dependencies."""
    return {
        "py_modules": [str(_PACKAGE)],
        "excludes": _NOT_UPLOADED,
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": _STOP_WAIT_S},
    }


def _run_job(address: str, entrypoint: str, runtime_env: Mapping[str, Any]) -> int:
    from neuron_atlas.infra.follow_job import follow, submit

    logging.disable(logging.WARNING)  # Hide Ray's lines about uploads and requests.
    client, job = submit(address, entrypoint, runtime_env)
    print_line(f"job        {job}, at {client.get_address()}")
    if line := dashboard_line(client.get_address(), os.environ):
        print_line(line)
    return asyncio.run(follow(client, job))


def dashboard_line(server: str, environment: Mapping[str, str]) -> str:
    """Return a line on how to open Ray's dashboard; empty if the cluster has no token.

    The dashboard asks for the token, which is never printed: the line names where it is.
    """
    if environment.get("RAY_AUTH_MODE") != "token":
        return ""
    # Ray prefers the variable to the file.
    place = "RAY_AUTH_TOKEN"
    if not environment.get("RAY_AUTH_TOKEN"):
        place = environment.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    return f"dashboard  {server} (paste the token, which is in {place})"


def _parser() -> argparse.ArgumentParser:
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="run-cluster",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--nodes", type=int, default=3, help="nodes of the local cluster (default 3)"
    )
    parser.add_argument("settings", nargs="*", help="settings of neuron-atlas, after --")
    return parser


if __name__ == "__main__":
    main()
