"""Errors that end a run, and errors that are shown without a traceback."""

from __future__ import annotations

from neuron_atlas.tasks.artifacts import OldTableError
from neuron_atlas.tasks.artifacts.damaged import DamagedTableError
from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.source import SampleError, SourceError

INTERRUPTED = 130
"""Exit status of a run that was stopped by Ctrl-C or SIGTERM."""


class ConfigError(Exception):
    """The command line or the configuration is wrong. Exit status 2."""


class RunError(Exception):
    """The run cannot continue; finished work is kept. Exit status 1."""


PLAIN_ERRORS = (
    ConfigError,
    RunError,
    DiskFullError,
    DamagedTableError,
    OldTableError,
    SampleError,
    SourceError,
    ModelError,
    ProviderError,
)
"""Errors whose message is enough, without a traceback."""
