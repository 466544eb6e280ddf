"""Write the log file of a work item: its warnings, and the traceback of its error."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.tasks.artifacts.location import atomic_file
from neuron_atlas.workflows.run.errors import PLAIN_ERRORS, RunError


@contextmanager
def item_log(path: Path) -> Iterator[list[str]]:
    """Log the work done while open to a file. Yields a growing list of the program's own warnings,
    each once.

    Adds a note with the file to an error of the work. Raises RunError in place of an error that is
    not in PLAIN_ERRORS; only the file has its traceback.
    """
    records = _Records()
    begun = time.monotonic()
    logging.captureWarnings(True)
    logging.getLogger().addHandler(records)
    try:
        yield records.warnings
        records.lines.append(f"finished in {time.monotonic() - begun:.1f} s")
    except PLAIN_ERRORS as error:
        records.lines.append(traceback.format_exc())
        error.add_note(f"log: {path}")
        raise
    except Exception as error:
        records.lines.append(traceback.format_exc())
        failed = RunError(f"unexpected error: {type(error).__name__}: {error}")
        failed.add_note(f"traceback: {path}")
        raise failed from None
    finally:
        logging.getLogger().removeHandler(records)
        with suppress(OSError, DiskFullError):  # A lost log must not fail finished work.
            _write(path, records.lines)


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        message = record.getMessage()
        if record.name.startswith("neuron_atlas.") and message not in self.warnings:
            self.warnings.append(message)


def _write(path: Path, lines: list[str]) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
