"""Read the jobs of a sweep: their settings, their names, and what they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError

LAYERS = "capture.layers"
_LONGEST_NAME = 100
_SAME_FOR_ALL = ("out", "local_dir", "tracking.experiment", "cluster.address", "cluster.cpus")


@dataclass(frozen=True)
class Job:
    """One run of a sweep. choices: this job's values of the swept settings."""

    choices: Mapping[str, str]
    config: Mapping[str, Any]
    settings: Settings

    @property
    def name(self) -> str:
        """The job's choices, such as "capture.layers=0"; unique in its sweep."""
        return _joined(self.choices) or "the only job"

    @property
    def capture_key(self) -> str:
        """Key of everything that decides the capture of a layer."""
        settings = self.settings
        decisive = {
            # By name: the weights are not read before they are needed.
            "subject": [settings.subject.model, settings.subject.revision],
            "subject_settings": identity(settings.subject),
            "data": identity(settings.data.source),
            "describe": identity(settings.describe),
            "capture": identity(replace(settings.capture, layers=None)),
        }
        return json.dumps(decisive, sort_keys=True, default=str)

    @property
    def other_choices(self) -> str:
        """The choices except layers; jobs with the same ones form one curve over layers."""
        return _joined({name: text for name, text in self.choices.items() if name != LAYERS})


@dataclass(frozen=True)
class JobResult:
    """Result of a job: exit status, error line if that is not 0, and context of the run."""

    job: Job
    status: int
    line: str = ""
    context: Context | None = None

    @property
    def has_results(self) -> bool:
        """Whether there are results to compare; a dry run has none."""
        return self.context is not None and "report" in self.context.done


def read_jobs(
    overrides: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]]
) -> list[Job]:
    """Return the jobs of composed configs.

    overrides, configs: one for each job. Raises ConfigError for a wrong setting, and ProviderError
    or ModelError for a missing key or model, before any job starts.
    """
    swept = _swept_settings(overrides)
    jobs = []
    for number, config in enumerate(configs):
        choices = {name: texts[number] for name, texts in swept.items()}
        try:
            settings = read_settings(config)
            settings.check()
        except (ConfigError, ProviderError) as error:
            where = f" (in the job {_joined(choices)})" if choices else ""
            raise type(error)(f"{error}{where}") from error
        jobs.append(Job(choices, config, settings))
    for path in _SAME_FOR_ALL:
        if len({str(_at(config, path)) for config in configs}) > 1:
            raise ConfigError(f"{path}: must be the same for all jobs of a sweep")
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise ConfigError(f"{names[0]}: two jobs of the sweep are the same; name each choice once")
    return jobs


def sweep_name(jobs: Sequence[Job]) -> str:
    """Return the swept settings with their values, such as "capture.layers=0,1,2"."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        for name, text in job.choices.items():
            if text not in values.setdefault(name, []):
                values[name].append(text)
    return " ".join(f"{name}={','.join(texts)}" for name, texts in values.items()) or "one job"


def folder_name(name: str) -> str:
    """Return a folder name for a name; the same name always yields the same one."""
    safe = "".join(letter if letter.isalnum() or letter in "=,._-[]" else "_" for letter in name)
    if safe == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def shared_capture(job: Job, jobs: Sequence[Job]) -> Settings | None:
    """Return the job's settings with the layers of all jobs that share its capture.

    Jobs share a capture if they capture the same samples in the same way. None if they all have the
    same layers; then the first of them captures for all.
    """
    choices = [
        other.settings.capture.layers for other in jobs if other.capture_key == job.capture_key
    ]
    if len(set(choices)) < 2:
        return None
    layers = None
    if None not in choices:
        layers = tuple(sorted({layer for choice in choices for layer in choice or ()}))
    settings = job.settings
    return replace(settings, capture=replace(settings.capture, layers=layers))


def _swept_settings(overrides: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return the settings in which jobs differ, with each job's value."""
    values: dict[str, list[str]] = {}
    for of_job in overrides:
        for text in of_job:
            name, _, value = text.partition("=")
            values.setdefault(name.lstrip("+"), []).append(value)
    return {name: texts for name, texts in values.items() if len(set(texts)) > 1}


def _joined(choices: Mapping[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in choices.items())


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value[part]
    return value
