"""Attach to a Ray cluster, or start one."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from neuron_atlas.workflows.cluster.machine import object_store_folder, prepare_machine
from neuron_atlas.workflows.cluster.progress import print_line, silence_libraries
from neuron_atlas.workflows.cluster.signals import (
    cluster_is_gone,
    preserve_sigterm,
    watch_cluster,
)
from neuron_atlas.workflows.cluster.start import start_with_retries
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.errors import ConfigError

_OBJECT_STORE_BYTES = 256 * 2**20
"""Work items contain paths and settings, not tables, so a local cluster needs little."""

_NEEDED = ("gcs_server", "raylet")
"""Ray's processes without which no work ends."""
_SECONDS_TO_ANSWER = 5.0
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 60.0
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def cluster(settings: ClusterSettings) -> Iterator[None]:
    """Attach to a Ray cluster or start one while open. Does nothing if Ray is initialized already.

    Raises ConfigError if there is no cluster at the address, RunError if Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The first error of failed work is raised; Ray would print the other ones.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    address = _address(settings)
    watch_cluster(_is_gone, silence_libraries)
    with preserve_sigterm():
        if address:
            _attach(address)
            _wait_for_gpus(settings.autoscale_gpus or 0)
        else:
            _start(settings)
    try:
        yield
    finally:
        if not cluster_is_gone():
            ray.shutdown()


def is_own_cluster(settings: ClusterSettings) -> bool:
    """Return whether the cluster is started by this program, for itself alone."""
    return _address(settings) is None


def _address(settings: ClusterSettings) -> str | None:
    return settings.address or os.environ.get("RAY_ADDRESS") or None


def _is_gone() -> bool:
    """Return whether a process of this program's own cluster has ended. A signal to every process
    of a job, as from SLURM, ends them while the program still waits for its work."""
    node = ray._private.worker._global_node
    return node is not None and any(name in _NEEDED for name, _ in node.dead_processes())


def _start(settings: ClusterSettings) -> None:
    """Start Ray on loopback, for this program alone: anyone with access to it can run code here."""
    # Otherwise Ray stores a token in the home folder, which other clusters would use later.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Listen on loopback only; the address alone is not enough. Ray reads this switch from the
    # environment when it is imported, which is too early.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    prepare_machine()
    _init(
        address="local",  # Without it, Ray joins any cluster that runs on this machine.
        num_cpus=settings.cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _plasma_directory=object_store_folder(),
    )


def _attach(address: str) -> None:
    wrong = f"cluster.address (or RAY_ADDRESS): no Ray cluster at {address!r}"
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        # Ray itself would retry for minutes, and print a line for each attempt.
        try:
            socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"{wrong}: {error}") from error
    try:
        _init(address=address)
    except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise ConfigError(
            f"{wrong}, or it requires a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH"
        ) from error


def _init(**options: Any) -> None:
    """Call ray.init, and retry after a timeout. Raises RunError."""

    def init() -> None:
        try:
            ray.init(**options, **_QUIET)
        except Exception:
            ray.shutdown()  # Clears the state of the failed attempt in this process.
            raise

    start_with_retries(init)


def _wait_for_gpus(wanted: int) -> None:
    """Request so many GPUs and wait for them: nodes that join later get no copy of the subject."""
    if not wanted:
        return
    request_resources(bundles=[{"GPU": 1}] * wanted)
    last_line_at = -math.inf
    while (n_gpus := int(ray.cluster_resources().get("GPU", 0))) < wanted:
        if time.monotonic() - last_line_at >= _SECONDS_BETWEEN_LINES:
            last_line_at = time.monotonic()
            print_line(
                f"cluster    {n_gpus} of {wanted} GPUs available "
                "(cluster.autoscale_gpus); waiting for more"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
