"""How a run that raised ends: with which exit status, and which line."""

from __future__ import annotations

import traceback

from neuron_atlas.tasks.artifacts.full_disk import DiskFull
from neuron_atlas.tasks.models.failures import Stopped, Unusable
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.source import BadSample, SourceError
from neuron_atlas.workflows.run.errors import INTERRUPTED, RunFailed, WrongCall


def outcome(error: BaseException) -> tuple[int, str]:
    """The exit status and the line for a person; an error nobody foresaw is printed in full."""
    match error:
        case RunFailed() | Stopped() | DiskFull():
            return 1, str(error)
        case WrongCall() | ModelError() | SourceError() | Unusable():
            return 2, str(error)
        case BadSample():
            return 1, f"an image that could be read before cannot be read now: {error.reason}"
        case KeyboardInterrupt():
            return INTERRUPTED, (
                "interrupted; what was finished is kept, and the same call goes on from there"
            )
    traceback.print_exception(error)
    return 1, "stopped by an error that was not foreseen; what was finished is kept"
