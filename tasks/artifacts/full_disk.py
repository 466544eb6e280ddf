"""Turn "no space left on device" into an error that names the disk and the remedy."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(Exception):
    """A disk or quota is full; the message names the disk and the remedy."""


@contextmanager
def raise_if_disk_full(path: Path) -> Iterator[None]:
    """Raise DiskFullError if the block (or SQLite in it) fails because the disk of `path` is
    full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(disk_full_message(path, error.errno)) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise DiskFullError(disk_full_message(path)) from error


def disk_full_message(path: Path, number: int = errno.ENOSPC) -> str:
    """Return the error message for the full disk of `path`. number: ENOSPC or EDQUOT."""
    existing = next((at for at in (path, *path.parents) if at.exists()), Path("/"))
    resolved = existing.resolve()
    mount = next(at for at in (resolved, *resolved.parents) if os.path.ismount(at))
    state = os.statvfs(existing)
    free, size = (count * state.f_frsize / 2**20 for count in (state.f_bavail, state.f_blocks))
    if number == errno.EDQUOT:
        problem = f"the quota of this user on {str(mount)!r} is used up"
    elif state.f_files and not state.f_favail:
        problem = f"the disk at {str(mount)!r} is full: no inodes are free"
    else:
        problem = f"the disk at {str(mount)!r} is full: {free:,.1f} of {size:,.1f} MB are free"
    return (
        f"{problem}, and {path.name!r} did not fit. Finished work is kept: free some space, then "
        "run the same command again"
    )
