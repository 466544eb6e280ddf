"""Submit a Ray job and follow it to its end: log, signals and exit status."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.cluster.waiting import WaitLines
from neuron_atlas.workflows.run.errors import INTERRUPTED, ConfigError, RunError

_ANSWER_TIMEOUT_S = 5.0
_RETRY_WAIT_S = 1.0
_MAX_RETRIES = 60


def submit(
    address: str, entrypoint: str, runtime_env: Mapping[str, Any]
) -> tuple[JobSubmissionClient, str]:
    """Submit a command as a job; return the client and the job's id.

    address: the cluster's job server (http://head:8265, https://...), or the cluster itself
    (head:6379, auto), which gives its job server. Raises ConfigError if the cluster does not answer
    or rejects the job.
    """
    client = _client(address)
    if needs_no_token(client.get_address()):
        print_line(
            f"cluster    {address} needs no token: anyone who can reach it can run code there"
        )
    try:
        return client, client.submit_job(entrypoint=entrypoint, runtime_env=dict(runtime_env))
    except RuntimeError as error:
        raise ConfigError(
            f"RAY_ADDRESS: {address} rejected the job: {_first_line(error)}"
        ) from error


async def follow(client: JobSubmissionClient, job: str) -> int:
    """Print a job's log until it ends; return its exit status, 130 if a signal stopped it.

    The first Ctrl-C or SIGTERM stops the job, which finishes work in progress; its log is followed
    to the end. The second one returns without waiting for the job. A broken connection is
    reopened. Raises RunError if the cluster stops answering.
    """
    loop = asyncio.get_running_loop()
    detach = asyncio.Event()
    stopping: asyncio.Task[None] | None = None

    def on_signal() -> None:
        nonlocal stopping
        if stopping is not None:
            detach.set()
            return
        print_line(
            f"stopping   {job}, which finishes work in progress; press Ctrl-C again not to wait"
        )
        stopping = loop.create_task(_stop(client, job))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        loop.add_signal_handler(number, on_signal)
    started = asyncio.Event()
    waiting = asyncio.create_task(_explain_start(job, started))
    try:
        printing = asyncio.create_task(_print_log(client, job, started))
        detaching = asyncio.create_task(detach.wait())
        await asyncio.wait({printing, detaching}, return_when=asyncio.FIRST_COMPLETED)
        if detach.is_set():
            printing.cancel()
            print_line(_detached(job, stopping))
            return INTERRUPTED
        detaching.cancel()
        return _status(printing.result(), job, stopping is not None)
    finally:
        waiting.cancel()
        if stopping is not None:
            stopping.cancel()
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler or signal.SIG_DFL)


async def _stop(client: JobSubmissionClient, job: str) -> None:
    """Stop a job; retry until the cluster accepts the request."""
    failures = 0
    while True:
        try:
            await asyncio.to_thread(client.stop_job, job)
            return
        except Exception as error:  # Retry after any error: nothing else stops the job.
            failures += 1
            if failures == 1:
                print_line(f"run-cluster: could not stop {job} ({_first_line(error)}); retrying")
        await asyncio.sleep(_RETRY_WAIT_S)


def _detached(job: str, stopping: asyncio.Task[None] | None) -> str:
    if stopping is not None and stopping.done():
        return f"run-cluster: {job} is stopping; run the same command again to continue"
    return (
        f"run-cluster: could not stop {job}; it may still be running (ray job stop {job}). Run the "
        "same command again to continue from the finished work"
    )


async def _explain_start(job: str, started: asyncio.Event) -> None:
    """Print lines about a job that prints nothing yet, as in an occupied cluster."""
    lines = WaitLines("job")
    while not started.is_set():
        lines.look(f"the cluster to start {job}")
        await asyncio.sleep(_RETRY_WAIT_S)


async def _print_log(client: JobSubmissionClient, job: str, started: asyncio.Event) -> JobDetails:
    """Print a job's log as it arrives; return the details of the finished job.

    Raises RunError if the cluster stops answering.
    """
    n_printed = 0
    failures = 0
    while True:
        n_received = 0
        try:
            async for chunk in client.tail_job_logs(job):
                failures = 0
                started.set()
                # After a reconnect, the log starts from the beginning.
                new = chunk[max(0, n_printed - n_received) :]
                n_received += len(chunk)
                n_printed = max(n_printed, n_received)
                print(new, end="", file=sys.stderr, flush=True)
            details = await asyncio.to_thread(client.get_job_info, job)
            if JobStatus(details.status).is_terminal():
                return details
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            failures += 1
            if failures == 1:
                print_line(f"run-cluster: lost the job's log ({_first_line(error)}); reconnecting")
            if failures >= _MAX_RETRIES:
                raise RunError(
                    f"no answer from the cluster for {_MAX_RETRIES * _RETRY_WAIT_S:.0f} s; {job} "
                    f"may still be running (ray job logs --follow {job}). Run the same command "
                    "again to continue from the finished work"
                ) from error
        await asyncio.sleep(_RETRY_WAIT_S)


def _status(details: JobDetails, job: str, stopped: bool) -> int:
    status, code = JobStatus(details.status), details.driver_exit_code
    if status == JobStatus.SUCCEEDED:
        return 0
    if status == JobStatus.STOPPED:
        if stopped:
            return INTERRUPTED
        print_line(
            f"run-cluster: another client stopped {job}; run the same command again to continue"
        )
        return 1
    if code is not None and 0 < code < 256:
        return code
    reason = _first_line(details.message or "no reason given")
    if code is not None and code < 0:
        reason = f"its driver was killed by {signal.Signals(-code).name}"
    print_line(
        f"run-cluster: {job} failed: {reason}. Finished work is kept; run the same command again "
        "to continue"
    )
    return 1


def _client(address: str) -> JobSubmissionClient:
    if address.startswith("ray://"):
        raise ConfigError(
            f"RAY_ADDRESS: {address} is a Ray Client address; give the job server instead, such as "
            f"http://{urlsplit(address).hostname}:8265"
        )
    _check_answers(address)
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise ConfigError(
            f"RAY_ADDRESS: {address}: {_first_line(error)}. For a cluster with a token, set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
        ) from error


def needs_no_token(server: str) -> bool:
    """Return whether a job server answers a request without a token."""
    try:
        return requests.get(f"{server}/api/jobs/", timeout=_ANSWER_TIMEOUT_S).ok
    except requests.RequestException:
        return False


def _check_answers(address: str) -> None:
    """Raise ConfigError if there is no connection; Ray itself would retry for a long time."""
    url = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = url.port or {"http": 80, "https": 443}.get(url.scheme)
        if url.hostname and port:
            socket.create_connection((url.hostname, port), _ANSWER_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"RAY_ADDRESS: no answer from {address}: {error}") from error


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))
