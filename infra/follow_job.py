"""Submit a Ray job and follow it to its end: log, signals, exit status."""

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

from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.run.errors import INTERRUPTED, RunFailed, WrongCall

_SECONDS_TO_ANSWER = 5.0
_SECONDS_BETWEEN_TRIES = 1.0
_TRIES = 60


def submit(
    address: str, entrypoint: str, runtime_env: Mapping[str, Any]
) -> tuple[JobSubmissionClient, str]:
    """Have a cluster run a command; the client, and the job's name. Raises WrongCall.

    address: of the cluster's job server (http://head:8265, https://...), or of the cluster
    (head:6379, auto), which is asked for it.
    """
    client = _client(address)
    if takes_anybody(client.get_address()):
        say(f"cluster    {address} wants no token: whoever reaches it can run code there")
    try:
        return client, client.submit_job(entrypoint=entrypoint, runtime_env=dict(runtime_env))
    except RuntimeError as error:
        raise WrongCall(f"RAY_ADDRESS: {address} takes no job: {_first_line(error)}") from error


async def follow(client: JobSubmissionClient, job: str) -> int:
    """Print a job's log until it ends; its exit status, 130 where it was stopped from here.

    Ctrl-C or SIGTERM stop the job, which keeps what is under way; its log is followed to its end.
    A second one leaves it alone. Where the connection breaks off it is taken up again.
    """
    loop = asyncio.get_running_loop()
    leaving = asyncio.Event()
    stopping: asyncio.Task[None] | None = None

    def stop() -> None:
        nonlocal stopping
        if stopping is not None:
            leaving.set()
            return
        say(f"stopping   {job}, once what is under way is kept; again to wait no longer")
        stopping = loop.create_task(_stop(client, job))

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, stop)
    try:
        printing = asyncio.create_task(_print_log(client, job))
        left = asyncio.create_task(leaving.wait())
        await asyncio.wait({printing, left}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.is_set():
            printing.cancel()
            say(_left(job, stopping))
            return INTERRUPTED
        left.cancel()
        return _status(printing.result(), job, stopping is not None)
    finally:
        if stopping is not None:
            stopping.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler or signal.SIG_DFL)


async def _stop(client: JobSubmissionClient, job: str) -> None:
    """Tell the cluster to stop a job, again and again until it takes that."""
    failures = 0
    while True:
        try:
            await asyncio.to_thread(client.stop_job, job)
            return
        except Exception as error:  # Whatever it is: nobody else stops the job.
            failures += 1
            if failures == 1:
                say(
                    f"run-cluster: {job} cannot be told to stop ({_first_line(error)}); tries again"
                )
        await asyncio.sleep(_SECONDS_BETWEEN_TRIES)


def _left(job: str, stopping: asyncio.Task[None] | None) -> str:
    if stopping is not None and stopping.done():
        return f"run-cluster: {job} was told to stop and is left; the same call goes on from there"
    return (
        f"run-cluster: {job} is left and may run on, for the cluster did not take that it shall "
        f"stop (ray job stop {job}); the same call goes on from what it has finished"
    )


async def _print_log(client: JobSubmissionClient, job: str) -> JobDetails:
    """Print all of a job's log as it comes; how the job ended. Raises RunFailed."""
    printed = 0
    failures = 0
    while True:
        seen = 0
        try:
            async for chunk in client.tail_job_logs(job):
                failures = 0
                # After a break the log comes from its beginning.
                fresh = chunk[max(0, printed - seen) :]
                seen += len(chunk)
                printed = max(printed, seen)
                print(fresh, end="", file=sys.stderr, flush=True)
            details = await asyncio.to_thread(client.get_job_info, job)
            if JobStatus(details.status).is_terminal():
                return details
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            failures += 1
            if failures == 1:
                say(f"run-cluster: the log broke off ({_first_line(error)}); tries again")
            if failures >= _TRIES:
                raise RunFailed(
                    f"the cluster has not answered for {_TRIES * _SECONDS_BETWEEN_TRIES:.0f} s; "
                    f"{job} may still run (ray job logs --follow {job}), and the same call goes "
                    "on from what it has finished"
                ) from error
        await asyncio.sleep(_SECONDS_BETWEEN_TRIES)


def _status(details: JobDetails, job: str, stopped: bool) -> int:
    status, code = JobStatus(details.status), details.driver_exit_code
    if status == JobStatus.SUCCEEDED:
        return 0
    if status == JobStatus.STOPPED:
        if stopped:
            return INTERRUPTED
        say(f"run-cluster: {job} was stopped by somebody else; the same call goes on from there")
        return 1
    if code is not None and 0 < code < 256:
        return code
    why = _first_line(details.message or "no reason is given")
    if code is not None and code < 0:
        why = f"its driver was killed by {signal.Signals(-code).name}"
    say(f"run-cluster: {job} failed: {why}; what was finished is kept, and the same call goes on")
    return 1


def _client(address: str) -> JobSubmissionClient:
    if address.startswith("ray://"):
        raise WrongCall(
            f"RAY_ADDRESS: {address} is Ray Client's; name the job server instead, such as "
            f"http://{urlsplit(address).hostname}:8265"
        )
    _check_answers(address)
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise WrongCall(
            f"RAY_ADDRESS: {address}: {_first_line(error)}. A cluster with a token wants "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
        ) from error


def takes_anybody(server: str) -> bool:
    """Whether a job server answers a request that has no token."""
    try:
        return requests.get(f"{server}/api/jobs/", timeout=_SECONDS_TO_ANSWER).ok
    except requests.RequestException:
        return False


def _check_answers(address: str) -> None:
    """Ray itself would try for long."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = place.port or {"http": 80, "https": 443}.get(place.scheme)
        if place.hostname and port:
            socket.create_connection((place.hostname, port), _SECONDS_TO_ANSWER).close()
    except (OSError, ValueError) as error:
        raise WrongCall(f"RAY_ADDRESS: nobody answers at {address}: {error}") from error


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))
