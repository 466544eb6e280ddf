"""The subject as something that actors hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from neuron_atlas.tasks.subject.settings import SubjectSettings
from neuron_atlas.workflows.cluster.actor_pool import Holding, Placement
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Needs


@dataclass(frozen=True)
class PlacedSubject:
    """A loaded subject, and how many actors share its machine's memory."""

    subject: Any
    sharers: int


def on_the_subject(context: Context) -> Needs:
    """What work on the subject runs on: an actor that holds a PlacedSubject."""
    return Needs(Holding("subject", partial(_load, context.settings.subject)))


def _load(settings: SubjectSettings, placement: Placement) -> PlacedSubject:
    from neuron_atlas.tasks.subject.load import load_subject

    return PlacedSubject(
        load_subject(settings, placement.device, placement.threads), placement.sharers
    )
