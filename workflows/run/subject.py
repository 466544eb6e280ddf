"""Hold the subject in the actors of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from neuron_atlas.tasks.subject.settings import SubjectSettings
from neuron_atlas.workflows.cluster.actor_pool import ActorResource, Placement
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Needs


@dataclass(frozen=True)
class PlacedSubject:
    """A loaded subject. n_processes: actors that share its machine's memory."""

    subject: Any
    n_processes: int


def needs_subject(context: Context) -> Needs:
    """Return the needs of work on the subject: an actor that holds a PlacedSubject."""
    return Needs(ActorResource("subject", partial(_load, context.settings.subject)))


def _load(settings: SubjectSettings, placement: Placement) -> PlacedSubject:
    from neuron_atlas.tasks.subject.load import load_subject

    return PlacedSubject(
        load_subject(settings, placement.device, placement.threads), placement.n_processes
    )
