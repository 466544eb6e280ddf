"""The servers of a simulator's model: an actor keeps each of them up, for as long as they are used.

They are started when they are first needed, and stopped when the stage that asks them is done. A
server itself is no child of Ray's: a watchdog ends it with its actor (tasks/serve/watchdog.py).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.models.servers import FixedServers, Servers
from neuron_atlas.tasks.serve.health import served_models
from neuron_atlas.tasks.serve.keep import Post, ServerFailed, State, keep_serving
from neuron_atlas.tasks.serve.settings import ServersSettings
from neuron_atlas.workflows.cluster.progress import Advance, progress, say
from neuron_atlas.workflows.cluster.spread import result
from neuron_atlas.workflows.config.settings import SimulateSettings
from neuron_atlas.workflows.models.directory import RemoteServers, open_directory
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall

_LOOPBACK = "127.0.0.1"
_LOOK_EVERY_S = 1.0
_SECONDS_BEFORE_SAYING = 60.0
_TO_END_S = 10.0
_ANSWERS_WITHIN_S = 10.0
_NO_KEY = "none"


class ServerPool:
    """Where the model of a run's simulator is served. logs: the folder for what servers write."""

    def __init__(self, simulate: SimulateSettings, logs: Path) -> None:
        self._simulate, self._logs = simulate, logs
        self._asker: Any = simulate.simulator
        self._attached: FixedServers | None = None
        self._servers: RemoteServers | None = None
        self._actors: list[Any] = []
        self._keeping: list[ray.ObjectRef] = []
        self._closed = threading.Event()

    def opened(self) -> Servers | None:
        """The servers, once all of them answer; None where the simulator's own settings say where
        its model is. Raises RunFailed with the end of the log of one that does not answer, and
        WrongCall where the settings cannot be met."""
        if self._simulate.base_urls:
            if self._attached is None:
                client = self._asker.client
                self._attached = attach(self._simulate.base_urls, client.model, client.api_key_env)
            return self._attached
        if self._simulate.servers is not None and self._servers is None:
            self._start(self._simulate.servers)
        return self._servers

    def close(self) -> None:
        """Stop the servers, and wait until nothing of them is left."""
        self._closed.set()
        if self._servers is None or self._simulate.servers is None:
            return
        with suppress(ray.exceptions.RayError):
            # Of one that died and is being started again, there is nothing to stop.
            ending = [actor.stop.options(max_task_retries=0).remote() for actor in self._actors]
            ending += self._keeping
            ending_s = self._simulate.servers.stop_s + _TO_END_S
            ray.wait(ending, num_returns=len(ending), timeout=ending_s)
            for actor in [*self._actors, self._servers.actor]:
                ray.kill(actor)
        self._servers, self._actors, self._keeping = None, [], []

    def _start(self, settings: ServersSettings) -> None:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        gpus = [int(node["Resources"].get("GPU", 0)) for node in nodes]
        count = server_count(settings, gpus)
        placed = _RemoteServer.options(
            num_gpus=settings.gpus if any(gpus) else 0, scheduling_strategy="SPREAD"
        )
        machines = {node["NodeManagerAddress"] for node in nodes}
        host = _LOOPBACK if len(machines) == 1 else ""
        servers = self._servers = open_directory(count, secrets.token_hex(32))
        self._closed = threading.Event()
        whole = _with_whole_paths(settings)
        for number in range(count):
            log = self._logs / f"server-{number}.log"
            post = Post(number, host, self._asker.client.model, log, servers.key)
            actor = placed.remote(whole, post)
            self._actors.append(actor)
            self._keeping.append(actor.keep.remote(servers.actor))
        try:
            with progress("servers", count, "servers answer") as advance:
                self._wait_for_all(servers, advance)
        except BaseException:
            self.close()
            raise
        arguments = (servers, settings.max_restarts, self._closed)
        threading.Thread(
            target=_tell_of_deaths, args=arguments, name="servers", daemon=True
        ).start()

    def _wait_for_all(self, servers: RemoteServers, advance: Advance) -> None:
        begun = said = time.monotonic()
        answering, count = 0, len(self._actors)
        while answering < count:
            ended, _ = ray.wait(self._keeping, timeout=_LOOK_EVERY_S)
            for reference in ended:
                result(reference)
            states = servers.states()
            up = sum(state.base_url is not None for state in states)
            if up != answering:
                advance(up - answering)
            answering = up
            waited_s = time.monotonic() - begun
            loading = [state for state in states if state.base_url is None and state.note]
            said_last = [f"{waited_s:.0f} s; server {one.number}: {one.note}" for one in loading]
            advance.note("".join(said_last[:1]))
            if len(states) < count and time.monotonic() - said > _SECONDS_BEFORE_SAYING:
                said = time.monotonic()
                say("servers    wait for a place in the cluster to be free")


def attach(base_urls: tuple[str, ...], model: str, api_key_env: str) -> FixedServers:
    """Servers that somebody else runs. Raises WrongCall where one does not answer, refuses the key
    or does not serve the model."""
    key = os.environ.get(api_key_env, "").strip() or _NO_KEY
    where = "simulate.base_urls"
    try:
        servers = FixedServers.at(base_urls, key)
    except ValueError as error:
        raise WrongCall(f"{where}: {error}") from error
    for server in servers.servers:
        try:
            names = served_models(server.base_url, key, _ANSWERS_WITHIN_S)
        except OSError as error:
            raise WrongCall(
                f"{where}: the server at {server.base_url} cannot be used: "
                f"{getattr(error, 'reason', error)} (its key is read from {api_key_env})"
            ) from None
        if names is not None and model not in names:
            raise WrongCall(
                f"{where}: the server at {server.base_url} serves {', '.join(names)} and not "
                f"{model!r}; set simulate.client.model to what it serves"
            )
    return servers


def server_count(settings: ServersSettings, gpus: Sequence[int]) -> int:
    """How many servers to start on a cluster whose nodes have so many GPUs each, since none has its
    GPUs on two nodes. Raises WrongCall."""
    if not any(gpus) or not settings.gpus:
        return settings.count or 1
    room = sum(of_node // settings.gpus for of_node in gpus)
    if (settings.count or 1) > room:
        each = " + ".join(str(of_node) for of_node in gpus if of_node)
        raise WrongCall(
            f"simulate.servers: {settings.count or 1} of {settings.gpus} GPUs each were asked for "
            f"(count, gpus), and the nodes of the cluster have {each}"
        )
    return settings.count or room


class _ServerActor:
    def __init__(self, settings: ServersSettings, post: Post) -> None:
        host = post.host or ray.util.get_node_ip_address()
        self._settings, self._post = settings, replace(post, host=host)
        self._ended = threading.Event()

    def keep(self, directory: Any) -> None:
        """Keep the server up until `stop`. Raises RunFailed once it is given up."""
        try:
            keep_serving(self._settings, self._post, directory.tell.remote, self._ended)
        except ServerFailed as error:
            state = State(self._post.number, died=str(error), is_given_up=True)
            ray.get(directory.tell.remote(state))
            raise RunFailed(str(error)) from None

    def stop(self) -> None:
        self._ended.set()


# Two threads: one keeps the server while the other is told to stop.
_RemoteServer: Any = ray.remote(
    num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=2
)(_ServerActor)


def _with_whole_paths(settings: ServersSettings) -> ServersSettings:
    """The same with paths that hold where actors run, in other folders. Links stay what they are,
    for the Python of a virtual environment is one."""

    def whole(word: str) -> str:
        path = Path(word).expanduser()
        return str(path.absolute()) if "/" in word and path.exists() else word

    return replace(settings, command=tuple(map(whole, settings.words)), arguments=())


def _tell_of_deaths(servers: RemoteServers, most: int, closed: threading.Event) -> None:
    """Say when a server died, and when it answers again, for as long as they are open."""
    down: set[int] = set()
    counted: dict[int, int] = {}
    while not closed.wait(_LOOK_EVERY_S):
        with suppress(ray.exceptions.RayError, RunFailed):
            for state in servers.states():
                _tell(state, down, counted, most)


def _tell(state: State, down: set[int], counted: dict[int, int], most: int) -> None:
    name = f"servers    server {state.number}"
    if state.is_given_up and counted.get(state.number) != -1:
        counted[state.number] = -1
        say(f"{name} is given up: {state.died}")
    elif state.restarts > counted.get(state.number, 0):
        counted[state.number] = state.restarts
        down.add(state.number)
        say(f"{name} {state.died}: started again ({state.restarts}; {most} an hour at most)")
    elif state.base_url is not None and state.number in down:
        down.discard(state.number)
        say(f"{name} answers again")
