"""Errors that end a run, and errors that are shown without a traceback."""

from __future__ import annotations

from neuron_atlas.tasks.artifacts.full_disk import DiskFull
from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.source import BadSample, SourceError

INTERRUPTED = 130
"""Exit status of a run that was stopped by Ctrl-C or SIGTERM."""


class WrongCall(Exception):
    """The command line or the configuration is wrong. Exit status 2."""


class RunFailed(Exception):
    """The run cannot continue; finished work is kept. Exit status 1."""


PLAIN_ERRORS = (WrongCall, RunFailed, DiskFull, BadSample, SourceError, ModelError, Unusable)
"""Errors whose message is enough, without a traceback."""
