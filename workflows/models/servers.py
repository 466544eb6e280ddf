"""Where a simulator's model is served: by servers of this run, or by servers that run already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.models.servers import FixedServers, Servers, whole_url
from neuron_atlas.tasks.simulate.simulator import Simulator
from neuron_atlas.workflows.cluster.actor_pool import Placement
from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.config.settings import ClusterSettings, SimulateSettings
from neuron_atlas.workflows.models.model_server import ModelServer
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.stage import Holding

_NO_KEY = "none"


@dataclass(frozen=True)
class ReadySimulator:
    """A simulator that can be called. servers: of its model; None for its client's address."""

    simulator: Simulator
    servers: Servers | None = None


def with_base_urls(settings: SimulateSettings) -> ReadySimulator:
    """Return the simulator, with the servers at base_urls if there are any."""
    simulator = settings.simulator
    if not settings.base_urls or simulator.client is None:
        return ReadySimulator(simulator)
    key = os.environ.get(simulator.client.api_key_env, "").strip() or _NO_KEY
    urls = [whole_url(url) for url in settings.base_urls]
    return ReadySimulator(simulator, FixedServers(urls, key))


def served_by_actors(simulator: Simulator, servers: ServersSettings, logs: Path) -> Holding:
    """Return the holding of actors that each run a server for the simulator."""
    return Holding(
        "simulate",
        partial(_serve, simulator, _with_whole_paths(servers), logs),
        unload=_stop,
        actors=partial(_count_on_cluster, servers),
    )


def server_count(settings: ServersSettings, gpus: Sequence[int]) -> int:
    """Return how many servers to start on nodes with so many GPUs each. Raises WrongCall."""
    if not any(gpus) or not settings.gpus:
        return settings.count or 1
    room = sum(of_node // settings.gpus for of_node in gpus)
    if (settings.count or 1) > room:
        each = " + ".join(str(of_node) for of_node in gpus if of_node)
        raise WrongCall(
            f"simulate.servers: {settings.count or 1} servers with {settings.gpus} GPUs each do "
            f"not fit the nodes of the cluster, which have {each}; lower count or gpus"
        )
    return settings.count or room


def _count_on_cluster(
    servers: ServersSettings, cluster: ClusterSettings
) -> tuple[int, dict[str, Any]]:
    gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    options = {"num_gpus": servers.gpus if any(gpus) else 0, "num_cpus": 0}
    return server_count(servers, gpus), {**options, "scheduling_strategy": "SPREAD"}


def _serve(
    simulator: Simulator, settings: ServersSettings, logs: Path, placement: Placement
) -> ReadySimulator:
    log = logs / f"server-{placement.number}.log"
    return ReadySimulator(simulator, ModelServer(settings, placement.number, log))


def _stop(ready: ReadySimulator) -> None:
    assert isinstance(ready.servers, ModelServer)
    ready.servers.close()


def _with_whole_paths(settings: ServersSettings) -> ServersSettings:
    """The same with paths that hold where actors run, in other folders. Links stay what they are,
    for the Python of a virtual environment is one."""

    def whole(word: str) -> str:
        path = Path(word).expanduser()
        return str(path.absolute()) if "/" in word and path.exists() else word

    return replace(settings, command=tuple(map(whole, settings.words)), arguments=())
