"""The two ways a call can end badly."""

from __future__ import annotations

INTERRUPTED = 130
"""Exit status of a run that was told to stop, by Ctrl-C or SIGTERM."""


class WrongCall(Exception):
    """The call itself is wrong: a setting, a path, a name. Exit status 2."""


class RunFailed(Exception):
    """The run could not go on; what was finished is kept. Exit status 1."""
