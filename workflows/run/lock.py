"""Lock an output folder: one run at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from neuron_atlas.tasks.artifacts.location import is_local
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.object_lock import object_lock


@contextmanager
def locked(folder: Path, setting: str = "out") -> Iterator[None]:
    """Lock a folder while open. setting: its name in the configuration.

    Two runs in one folder would pay for the same requests twice, and one would remove files that
    the other reads. The system releases the lock when its process ends, even if it is killed.
    Raises ConfigError if another run holds the lock, or if the folder is not writable.
    """
    if not is_local(folder):
        with object_lock(folder):
            yield
        return
    with _opened(folder / ".lock", setting) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{setting}: another run is writing to {str(folder)!r}; wait for it or name "
                "another folder"
            ) from error
        except OSError:
            pass  # The file system has no locks; the run continues without one.
        yield


def _opened(path: Path, setting: str) -> IO[str]:
    try:
        return path.open("w")
    except OSError as error:
        raise ConfigError(
            f"{setting}: cannot write below {str(path.parent)!r}: {error.strerror}; name another "
            "folder"
        ) from error
