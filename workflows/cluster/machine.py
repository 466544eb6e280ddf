"""Find what Ray needs of this machine: a short temporary folder, shared memory, and files."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.errors import ConfigError

_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
_BELOW_TEMP = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.1")
LONGEST_TEMP = _LONGEST_SOCKET - _BELOW_TEMP
"""Bytes of the longest temporary folder: the paths of Ray's sockets are limited."""
_SHARED_MEMORY = Path("/dev/shm")
_OPEN_FILES = 512
_FILE_BYTES = 2**30
_ENOUGH = {resource.RLIMIT_NOFILE: 65_536, resource.RLIMIT_FSIZE: 2**50}
"""To what a limit is raised where the shell allows it."""


def prepare_machine() -> None:
    """Set RAY_TMPDIR to a folder that Ray can use, and raise the limits of files.

    Prints a line if the folder is not the one of the environment. Raises ConfigError if there is no
    such folder, or if too few files may be open or files may not be large enough.
    """
    _raise_limit(resource.RLIMIT_NOFILE, _OPEN_FILES, "open files", "ulimit -n 4096")
    _raise_limit(resource.RLIMIT_FSIZE, _FILE_BYTES, "bytes in a file", "ulimit -f unlimited")
    wanted = next(
        (value for name in ("RAY_TMPDIR", "TMPDIR") if (value := os.environ.get(name))), ""
    )
    folders = dict.fromkeys(filter(None, [wanted, "/tmp", "/dev/shm", "/var/tmp"]))
    problems = {folder: _problem(folder) for folder in folders}
    usable = next((folder for folder, problem in problems.items() if not problem), None)
    if usable is None:
        tried = "; ".join(f"{folder!r} {problem}" for folder, problem in problems.items())
        raise ConfigError(
            f"RAY_TMPDIR: Ray has no temporary folder: {tried}. Set RAY_TMPDIR to a writable "
            f"folder with a path of at most {LONGEST_TEMP} bytes"
        )
    if wanted and usable != wanted:
        print_line(f"cluster    Ray's files are in {usable}/ray: {wanted!r} {problems[wanted]}")
    os.environ["RAY_TMPDIR"] = usable


def object_store_folder() -> str | None:
    """Return the folder for Ray's object store; None for Ray's own choice, shared memory."""
    if sys.platform != "linux" or os.access(_SHARED_MEMORY, os.W_OK):
        return None
    return os.environ["RAY_TMPDIR"]


def _problem(folder: str) -> str:
    """Return why Ray cannot use a temporary folder; "" if it can."""
    if len(os.fsencode(folder)) > LONGEST_TEMP:
        return f"is longer than {LONGEST_TEMP} bytes, and Ray's sockets would not fit"
    if not os.path.isabs(folder):
        return "is not an absolute path"
    try:
        below = Path(folder) / "ray"
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=below if below.exists() else folder):
            return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"


def _raise_limit(kind: int, needed: int, unit: str, remedy: str) -> None:
    """Raise a limit of this process as far as it may. Raises ConfigError if that is too low."""
    soft, hard = resource.getrlimit(kind)
    unlimited = resource.RLIM_INFINITY
    most = _ENOUGH[kind] if hard == unlimited else min(hard, _ENOUGH[kind])
    if soft != unlimited and soft < most:
        resource.setrlimit(kind, (most, hard))
    if most < needed:
        raise ConfigError(
            f"this shell allows {most:,} {unit}, and Ray needs {needed:,}; raise the limit: "
            f"{remedy}"
        )
