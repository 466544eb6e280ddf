"""One run at a time in an output folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuron_atlas.tasks.artifacts.location import is_local
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.object_lock import held


@contextmanager
def locked(folder: Path, setting: str = "out") -> Iterator[None]:
    """Hold a folder while open. setting: that names it. Raises WrongCall if another run holds it.

    Two runs in one folder would ask a model the same questions twice, and one would remove what
    the other still reads. The system lets go of the lock when its process ends, however it ends.
    """
    if not is_local(folder):
        with held(folder):
            yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WrongCall(
                f"{setting}: another run is writing to {str(folder)!r}; wait for it or name "
                "another folder"
            ) from error
        except OSError:
            pass  # A file system that has no locks: the run goes on without.
        yield
