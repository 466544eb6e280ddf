"""The jobs of a sweep: what each is called, and what they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import WrongCall

LAYERS = "capture.layers"
_LONGEST_NAME = 100
_ONE_FOR_ALL = ("out", "local", "tracking.experiment", "cluster.address", "cluster.cpus")


@dataclass(frozen=True)
class Job:
    """One run of a sweep. choices: of the settings that are swept, what this job takes."""

    choices: Mapping[str, str]
    config: Mapping[str, Any]
    settings: Settings

    @property
    def name(self) -> str:
        """Its choices, such as "capture.layers=0"; unique in its sweep."""
        return _joined(self.choices) or "the only job"

    @property
    def captured(self) -> str:
        """All that decides what is captured of a layer."""
        settings = self.settings
        decisive = {
            # Of a subject its name too: what its weights are is read where they are needed.
            "subject": [settings.subject.model, settings.subject.revision],
            "asked": identity(settings.subject),
            "data": identity(settings.data.source),
            "describe": identity(settings.describe),
            "capture": identity(replace(settings.capture, layers=None)),
        }
        return json.dumps(decisive, sort_keys=True, default=str)

    @property
    def beside_layers(self) -> str:
        """Its choices other than of layers: jobs with the same ones are one curve over layers."""
        return _joined({name: text for name, text in self.choices.items() if name != LAYERS})


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit status, a line where that is not 0, and what it left."""

    job: Job
    status: int
    line: str = ""
    context: Context | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has results to compare: a dry run has none."""
        return self.context is not None and "report" in self.context.done


def read_jobs(
    overrides: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]]
) -> list[Job]:
    """The jobs of these composed configs. Raises WrongCall, or Unusable for want of a key, before
    anything has begun, where one of them could not run."""
    swept = _swept(overrides)
    jobs = []
    for number, config in enumerate(configs):
        choices = {name: texts[number] for name, texts in swept.items()}
        try:
            settings = read_settings(config)
            settings.check()
        except (WrongCall, Unusable) as error:
            which = f" (in the job {_joined(choices)})" if choices else ""
            raise type(error)(f"{error}{which}") from error
        jobs.append(Job(choices, config, settings))
    for path in _ONE_FOR_ALL:
        if len({str(_at(config, path)) for config in configs}) > 1:
            raise WrongCall(f"{path}: must be the same for all jobs of a sweep")
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise WrongCall(f"{names[0]}: two jobs of the sweep are the same; name each choice once")
    return jobs


def sweep_name(jobs: Sequence[Job]) -> str:
    """What is swept over what, such as "capture.layers=0,1,2"."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        for name, text in job.choices.items():
            if text not in values.setdefault(name, []):
                values[name].append(text)
    return " ".join(f"{name}={','.join(texts)}" for name, texts in values.items()) or "one job"


def folder_name(name: str) -> str:
    """A name as one of a folder, the same each time."""
    safe = "".join(letter if letter.isalnum() or letter in "=,._-[]" else "_" for letter in name)
    if safe == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def shared_capture(job: Job, jobs: Sequence[Job]) -> Settings | None:
    """The job's settings with the layers of all jobs that capture the same samples in the same way.

    None where no other asks for other layers: then whichever comes first captures for all.
    """
    asked = [other.settings.capture.layers for other in jobs if other.captured == job.captured]
    if len(set(asked)) < 2:
        return None
    layers = None
    if None not in asked:
        layers = tuple(sorted({layer for some in asked for layer in some or ()}))
    settings = job.settings
    return replace(settings, capture=replace(settings.capture, layers=layers))


def _swept(overrides: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The settings in which jobs differ, and what each job takes."""
    told: dict[str, list[str]] = {}
    for of_job in overrides:
        for text in of_job:
            name, _, value = text.partition("=")
            told.setdefault(name.lstrip("+"), []).append(value)
    return {name: texts for name, texts in told.items() if len(set(texts)) > 1}


def _joined(choices: Mapping[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in choices.items())


def _at(config: Mapping[str, Any], path: str) -> Any:
    found: Any = config
    for part in path.split("."):
        found = found[part]
    return found
