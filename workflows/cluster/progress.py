"""Show the progress of a stage: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as BarTask
from rich.text import Text

_SECONDS_BETWEEN_LINES = 5.0


class Advance(Protocol):
    """Reports `count` more finished units. `note` sets a short text after the progress."""

    def __call__(self, count: int) -> None: ...  # noqa: D102

    def note(self, text: str) -> None: ...  # noqa: D102


@contextmanager
def progress(name: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show the progress of `name`, with rate and time left. done: units finished by earlier runs.

    An empty unit shows nothing, for short work.
    """
    if not unit:
        yield _Nothing()
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(name, total=total, completed=done, unit=unit, begun=done, note="")
            yield _BarAdvance(bar, task)
    else:
        lines = _Lines(name, total, unit, done)
        yield lines
        lines.close()


def print_line(message: str) -> None:
    """Print a line for the user, to standard error. A run goes on if nobody reads it any more."""
    with suppress(OSError, ValueError):  # A closed pipe or terminal, or a full disk.
        print(message, file=sys.stderr, flush=True)


def open_closed_streams() -> None:
    """Give this process the standard streams that it was started without, as with `2>&-`."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def silence_libraries() -> None:
    """Discard what libraries in C++ write to standard error; the program's own lines still show."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def discard_unread_output() -> None:
    """Discard output that nobody reads any more, as after `| head -1`. Python would end with a
    traceback when it writes the rest."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


class _Nothing:
    def __call__(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _BarAdvance:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text)


class _Rate(ProgressColumn):
    def render(self, task: BarTask) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text(f"{speed:,.0f} {unit}/s" if speed else unit, style="progress.data.speed")


class _Lines:
    def __init__(self, name: str, total: int, unit: str, done: int) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = self._begun = done
        self._start = self._last_line_at = time.monotonic()
        self._note = ""
        if done:
            print_line(f"{self._counted()} were done before")

    def __call__(self, count: int) -> None:
        self._done += count
        self._print_occasionally()

    def note(self, text: str) -> None:
        self._note = text
        self._print_occasionally()

    def _print_occasionally(self) -> None:
        now = time.monotonic()
        if now - self._last_line_at >= _SECONDS_BETWEEN_LINES and self._done < self._total:
            self._last_line_at = now
            pace = self._rate()
            how = f"{pace:,.0f}/s" if pace else "just begun"
            if pace:
                how += f", {(self._total - self._done) / pace:,.0f} s left"
            print_line(f"{self._counted()}, {how}{self._noted()}")

    def close(self) -> None:
        elapsed = time.monotonic() - self._start
        print_line(f"{self._counted()}, {self._rate():,.0f}/s, {elapsed:.1f} s{self._noted()}")

    def _noted(self) -> str:
        return f", {self._note}" if self._note else ""

    def _counted(self) -> str:
        return f"{self._name:<10} {self._done:,}/{self._total:,} {self._unit}"

    def _rate(self) -> float:
        return (self._done - self._begun) / max(time.monotonic() - self._start, 1e-9)
