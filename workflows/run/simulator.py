"""Provide what a simulator runs on: its model, its servers and their capabilities."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.simulate.simulator import Capabilities, Simulator
from neuron_atlas.workflows.cluster.actor_pool import ActorResource, Placement, actor_count
from neuron_atlas.workflows.models.calls import ModelUse
from neuron_atlas.workflows.models.model_server import ModelServer
from neuron_atlas.workflows.models.servers import server_resource
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Needs, Worker
from neuron_atlas.workflows.run.store import read_json

CAPABILITIES = "capabilities.json"
"""File in the folder of `simulate` with the capabilities of the simulator's server."""


def simulator_needs(title: str, context: Context) -> Needs:
    """Return what work with the simulator needs. title: of its spending."""
    settings = context.settings.simulate
    simulator = settings.simulator
    if simulator.client is None:
        return Needs(_resource(context))
    use = ModelUse(
        "simulate",
        title,
        simulator.client,
        simulator.prices,
        settings.budget_usd,
        settings.mode,
        settings.base_urls,
    )
    return Needs(_resource(context), use)


def in_place(worker: Worker, simulator: Simulator) -> tuple[Simulator, CallOptions]:
    """Return the simulator as its actor has loaded it, with the way to the actor's server."""
    if isinstance(worker.loaded, ModelServer):
        return simulator, replace(worker.calls, servers=worker.loaded)
    return worker.loaded or simulator, worker.calls


def read_capabilities(folder: Path) -> Capabilities | None:
    """Return the capabilities that a probe has written; None if it found none."""
    try:
        return Capabilities(**read_json(folder / CAPABILITIES))
    except FileNotFoundError:
        return None


def _resource(context: Context) -> ActorResource | None:
    settings = context.settings.simulate
    if settings.simulator.loads_model:
        # Unlike a subject, a simulator's model is never spread over several GPUs.
        one_gpu = partial(actor_count, gpus_per_actor=1)
        return ActorResource("simulate", partial(_load, settings.simulator), actors=one_gpu)
    if settings.own_servers is not None:
        return server_resource(settings.own_servers, context.store.local / "servers")
    return None


def _load(simulator: Simulator, placement: Placement) -> Simulator:
    return simulator.load(placement.device, placement.threads)
