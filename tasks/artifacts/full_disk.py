"""What is said where a disk has no room left."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(Exception):
    """A disk has no room; the message says which, and what to do."""


@contextmanager
def tell_if_full(path: Path) -> Iterator[None]:
    """Raise DiskFull where what is done within, also by SQLite, finds the disk of `path` full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(full_disk(path, error.errno)) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise DiskFull(full_disk(path)) from error


def full_disk(path: Path, number: int = errno.ENOSPC) -> str:
    """The line that says so of the disk of `path`; number: the system's, of what went wrong."""
    place = next((at for at in (path, *path.parents) if at.exists()), Path("/"))
    mount = next(at for at in (place.resolve(), *place.resolve().parents) if os.path.ismount(at))
    state = os.statvfs(place)
    free, size = (count * state.f_frsize / 2**20 for count in (state.f_bavail, state.f_blocks))
    if number == errno.EDQUOT:
        what = f"the quota of this account on {str(mount)!r} is used up"
    elif state.f_files and not state.f_favail:
        what = f"the disk at {str(mount)!r} is full: it has no room for another file's name"
    else:
        what = f"the disk at {str(mount)!r} is full: {free:,.1f} of {size:,.1f} MB are free"
    return (
        f"{what}, and {path.name!r} did not fit. What was finished is kept: make room there, and "
        "the same call goes on"
    )
