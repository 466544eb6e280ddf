"""Run model servers in the actors of a pool: count them, and place them on GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.workflows.cluster.actor_pool import ActorResource, Placement
from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.models.model_server import ModelServer
from neuron_atlas.workflows.run.errors import ConfigError


def server_resource(settings: ServersSettings, logs: Path) -> ActorResource:
    """Return the resource of actors that each run a server. logs: the folder of their log files."""
    command = tuple(map(_whole, settings.command_line))
    start = partial(_start, replace(settings, command=command, arguments=()), logs)
    count = partial(_count_on_cluster, settings)
    return ActorResource("simulate", start, unload=ModelServer.close, actors=count)


def server_count(settings: ServersSettings, gpus: Sequence[int]) -> int:
    """Return how many servers to start. gpus: of each node. Raises ConfigError if they do not
    fit."""
    if not any(gpus) or not settings.gpus:
        return settings.count or 1
    limit = sum(of_node // settings.gpus for of_node in gpus)
    if (settings.count or 1) > limit:
        each = " + ".join(str(of_node) for of_node in gpus if of_node)
        raise ConfigError(
            f"simulate.servers: {settings.count or 1} servers with {settings.gpus} GPUs each do "
            f"not fit the nodes of the cluster, which have {each}; lower count or gpus"
        )
    return settings.count or limit


def _count_on_cluster(servers: ServersSettings, _: ClusterSettings) -> tuple[int, dict[str, Any]]:
    gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    options = {"num_gpus": servers.gpus if any(gpus) else 0, "num_cpus": 0}
    return server_count(servers, gpus), {**options, "scheduling_strategy": "SPREAD"}


def _start(settings: ServersSettings, logs: Path, placement: Placement) -> ModelServer:
    return ModelServer(settings, placement.number, logs / f"server-{placement.number}.log")


def _whole(word: str) -> str:
    """Make an existing path absolute, because actors may run in another folder. Does not resolve
    links: the Python of a virtual environment is one."""
    path = Path(word).expanduser()
    return str(path.absolute()) if "/" in word and path.exists() else word
