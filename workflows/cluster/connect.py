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

from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.signals import keeping_sigterm
from neuron_atlas.workflows.cluster.start import start_with_retries
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.errors import WrongCall

_OBJECT_STORE_BYTES = 256 * 2**20
"""Work items carry paths and settings, never tables, so a cluster of our own needs little."""

_SECONDS_TO_ANSWER = 5.0
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 60.0
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def cluster(settings: ClusterSettings) -> Iterator[None]:
    """A running Ray for as long as it is open; one that was running already is left as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Of work that fails the first error is raised; Ray would write of the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    address = settings.address or os.environ.get("RAY_ADDRESS")
    with keeping_sigterm():
        if address:
            _attach(address)
            _wait_for_gpus(settings.gpus or 0)
        else:
            _start(settings)
    try:
        yield
    finally:
        ray.shutdown()


def _start(settings: ClusterSettings) -> None:
    """Start Ray on this machine, for this program alone: whoever reached it could run code here."""
    # Otherwise Ray would keep a token in the home folder, which later decides how others join.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Ray's own switch, which it reads from the environment when it is imported: listen on
    # loopback only. The address alone does not do it.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    _init(
        address="local",  # Without it, Ray joins whatever cluster it finds running here.
        num_cpus=settings.cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
    )


def _attach(address: str) -> None:
    wrong = f"cluster.address (or RAY_ADDRESS): no Ray cluster at {address!r}"
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        # Ray itself would try for minutes, and write of every try.
        try:
            socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise WrongCall(f"{wrong}: {error}") from error
    try:
        _init(address=address)
    except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise WrongCall(
            f"{wrong}, or it wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH"
        ) from error


def _init(**options: Any) -> None:
    """Call ray.init, again where a wait of Ray's runs out. Raises RunFailed."""

    def init() -> None:
        try:
            ray.init(**options, **_QUIET)
        except Exception:
            ray.shutdown()  # Clears what the failed attempt has set up in this process.
            raise

    start_with_retries(init)


def _wait_for_gpus(wanted: int) -> None:
    """Have a cluster grow to so many GPUs: workers that join later get no copy of the subject."""
    if not wanted:
        return
    request_resources(bundles=[{"GPU": 1}] * wanted)
    said = -math.inf
    while (there := int(ray.cluster_resources().get("GPU", 0))) < wanted:
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"cluster    {there} of {wanted} GPUs are there (cluster.gpus); waits for the rest")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
