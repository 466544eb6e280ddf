"""Open the output of a run: its store, and its folder on the driver's machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuron_atlas.tasks.artifacts.location import (
    atomic_file,
    downloaded_files,
    is_local,
    parse_location,
)
from neuron_atlas.tasks.models.account.tables import merge, snapshot
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.models.calls import JOURNAL
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.lock import locked
from neuron_atlas.workflows.run.store import Store, local_folder


@contextmanager
def opened_store(out: str, local_dir: str | None) -> Iterator[Store]:
    """Open the store in `out` and lock it for this run.

    local_dir: a folder of this machine for the journal and MLflow's runs, locked too. None is `out`
    itself or, if that is on an object store, a folder below ~/.cache/neuron-atlas.

    If the journal is outside `out`, the copy in `out` is first merged into it, so that answers
    from another machine are not paid for again. At the end it is copied to `out`, even after an
    error. Raises ConfigError if a folder is locked or not writable.
    """
    store = _store(out, local_dir)
    with locked(store.out):
        if store.local_dir is None:
            yield store
            return
        # Two runs with one journal would each spend the whole budget.
        with locked(store.local, "local_dir"):
            print_line(f"local      the journal of calls and MLflow's runs are in {store.local}")
            _merge_copy(store)
            try:
                yield store
            finally:
                copy_journal(store)


def copy_journal(store: Store) -> None:
    """Copy a journal outside `out` into it. Prints a line if that fails."""
    journal = store.local / JOURNAL
    if store.local_dir is None or not journal.is_file():
        return
    try:
        with atomic_file(store.out / JOURNAL) as copy:
            snapshot(journal, copy)
    except Exception as error:  # The journal itself is safe.
        print_line(
            f"local      the journal was not copied to {store.out}: {error}; it is {journal}"
        )


def _store(out: str, local_dir: str | None) -> Store:
    try:
        place = parse_location(out)
    except ValueError as error:
        raise ConfigError(f"out: {error}") from error
    folder = local_folder(str(place), local_dir)
    for name, written in (("out", place), ("local_dir", folder)):
        if is_local(written):
            _check_writable(name, written)
    return Store(place, None if folder == place else folder)


def _check_writable(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if name == "out":
            (folder / "artifacts").mkdir(exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise ConfigError(
            f"{name}: cannot write below {str(folder)!r}: {reason}; name another folder"
        ) from error


def _merge_copy(store: Store) -> None:
    if (store.out / JOURNAL).is_file():
        with downloaded_files(store.out, [JOURNAL]) as folder:
            merge(folder / JOURNAL, store.local / JOURNAL)
