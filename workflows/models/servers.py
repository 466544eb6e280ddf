"""Servers that the actors of a pool run: how many, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.workflows.cluster.actor_pool import Holding, Placement
from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.models.model_server import ModelServer
from neuron_atlas.workflows.run.errors import WrongCall


def served_by_actors(settings: ServersSettings, logs: Path) -> Holding:
    """Return the holding of actors that each run a server. logs: the folder of their log files."""
    command = tuple(map(_whole, settings.words))
    start = partial(_start, replace(settings, command=command, arguments=()), logs)
    count = partial(_count_on_cluster, settings)
    return Holding("simulate", start, unload=ModelServer.close, actors=count)


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


def _count_on_cluster(servers: ServersSettings, _: ClusterSettings) -> tuple[int, dict[str, Any]]:
    gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    options = {"num_gpus": servers.gpus if any(gpus) else 0, "num_cpus": 0}
    return server_count(servers, gpus), {**options, "scheduling_strategy": "SPREAD"}


def _start(settings: ServersSettings, logs: Path, placement: Placement) -> ModelServer:
    return ModelServer(settings, placement.number, logs / f"server-{placement.number}.log")


def _whole(word: str) -> str:
    """Make a path absolute, for actors may run in another folder. Links stay what they are: the
    Python of a virtual environment is one."""
    path = Path(word).expanduser()
    return str(path.absolute()) if "/" in word and path.exists() else word
