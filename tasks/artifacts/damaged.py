"""Turn Arrow's errors of a damaged table into one that names the file and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


class DamagedTableError(Exception):
    """A table's file is damaged, as after a failure of its disk; the message has the remedy."""


@contextmanager
def raise_if_damaged(path: Path) -> Iterator[None]:
    """Raise DamagedTableError if the block cannot read the table in `path`."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Of the system: the file is absent or cannot be opened.
        reason = " ".join(str(error).split())[:160]
        raise DamagedTableError(
            f"{path}: damaged ({reason}). Delete this file and run the same command again, which "
            "writes it again"
        ) from error
