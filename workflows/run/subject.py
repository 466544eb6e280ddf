"""Hold the subject in the actors of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from neuron_atlas.tasks.capture.settings import CaptureSettings
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
    settings = context.settings
    load = partial(_load, settings.subject, settings.capture)
    return Needs(ActorResource("subject", load))


def _load(
    settings: SubjectSettings, capture: CaptureSettings, placement: Placement
) -> PlacedSubject:
    from neuron_atlas.tasks.subject.load import load_subject
    from neuron_atlas.tasks.subject.sae.attach import with_saes

    subject = load_subject(settings, placement.device, placement.threads)
    if capture.sae.path is not None:
        subject = with_saes(subject, capture.sae.path, capture.layers)
    return PlacedSubject(subject, placement.n_processes)
