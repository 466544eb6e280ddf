"""Exit status and message of a run that raised an error."""

from __future__ import annotations

import errno
import sqlite3
import traceback
from contextlib import suppress

from neuron_atlas.tasks.artifacts import OldTableError
from neuron_atlas.tasks.artifacts.damaged import DamagedTableError
from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.tasks.models.failures import ProviderError, ProviderStoppedError
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.source import SampleError, SourceError
from neuron_atlas.workflows.run.errors import INTERRUPTED, ConfigError, RunError


def exit_status_of(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the message for the user. Prints the traceback of an unexpected
    error."""
    status, message = _status_and_message(error)
    notes: list[str] = getattr(error, "__notes__", [])  # Such as the log file of a work item.
    return status, "\n".join([message, *notes])


def _status_and_message(error: BaseException) -> tuple[int, str]:
    match error:
        case RunError() | ProviderStoppedError() | DiskFullError():
            return 1, str(error)
        case DamagedTableError() | OldTableError():
            return 1, str(error)
        case ConfigError() | ModelError() | SourceError() | ProviderError():
            return 2, str(error)
        case SampleError():
            return 1, f"an image that could be read before cannot be read now: {error.reason}"
        case KeyboardInterrupt():
            return INTERRUPTED, (
                "interrupted; finished work is kept, and the same command goes on from there"
            )
        case OSError() | sqlite3.Error() | MemoryError():
            return 1, (
                f"{_of_environment(error)}. Finished work is kept; once the cause is gone, the "
                "same command goes on"
            )
    with suppress(OSError):  # Nobody reads the terminal any more.
        traceback.print_exception(error)
    return 1, "unexpected error (traceback above); finished work is kept"


def _of_environment(error: BaseException) -> str:
    """Return the message for an error of the machine: its disks, files, network or memory."""
    if isinstance(error, MemoryError):
        return "this machine has too little memory for the run"
    number = getattr(error, "errno", None)
    if number == errno.EMFILE:
        return "too many open files; raise the limit of this shell: ulimit -n 4096"
    if number == errno.EFBIG:
        return f"{_file(error)}: larger than the limit of this shell or disk; see ulimit -f"
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or repr(error)
    return f"{_file(error)}: {reason}" if _file(error) else reason


def _file(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return "" if name is None else str(name)
