"""The errors that end a call, and those of the work whose message is all that a user needs."""

from __future__ import annotations

from neuron_atlas.tasks.artifacts.full_disk import DiskFull
from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.source import BadSample, SourceError

INTERRUPTED = 130
"""Exit status of a run that was stopped by Ctrl-C or SIGTERM."""


class WrongCall(Exception):
    """The call itself is wrong: a setting, a path, a name. Exit status 2."""


class RunFailed(Exception):
    """The run could not go on; finished work is kept. Exit status 1."""


PLAIN_ERRORS = (WrongCall, RunFailed, DiskFull, BadSample, SourceError, ModelError, Unusable)
"""Errors of the work that need no traceback."""
