"""Where a run writes: its store, and what of it stays on the driver's machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuron_atlas.tasks.artifacts.location import fetched, is_local, location, writing
from neuron_atlas.tasks.models.account.tables import merge, snapshot
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.models.calls import JOURNAL
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.lock import locked
from neuron_atlas.workflows.run.store import Store, local_folder


@contextmanager
def opened_store(out: str, local: str | None) -> Iterator[Store]:
    """The store in `out`, for this run alone. Raises WrongCall.

    local: a folder of this machine for the journal and MLflow's runs, for this run alone. None is
    `out` itself or, where that is on an object store, a folder below ~/.cache/neuron-atlas.

    A journal outside `out` first takes over what its copy in `out` holds, so that answers paid for
    on another machine are not paid for again. It is copied to `out` at the end, however the run
    ends.
    """
    store = _store(out, local)
    with locked(store.out):
        if store.beside is None:
            yield store
            return
        # Two programs on one journal would each spend the whole budget.
        with locked(store.local, "local"):
            say(f"local      the journal of calls and MLflow's runs are in {store.local}")
            _learn(store)
            try:
                yield store
            finally:
                copy_journal(store)


def copy_journal(store: Store) -> None:
    """Copy a journal outside `out` into it. Where that fails, print a line."""
    journal = store.local / JOURNAL
    if store.beside is None or not journal.is_file():
        return
    try:
        with writing(store.out / JOURNAL) as copy:
            snapshot(journal, copy)
    except Exception as error:  # The journal itself is safe.
        say(f"local      the journal was not copied to {store.out}: {error}; it is {journal}")


def _store(out: str, local: str | None) -> Store:
    try:
        place = location(out)
    except ValueError as error:
        raise WrongCall(f"out: {error}") from error
    folder = local_folder(str(place), local)
    for name, written in (("out", place), ("local", folder)):
        if is_local(written):
            _check_writable(name, written)
    return Store(place, None if folder == place else folder)


def _check_writable(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if name == "out":
            (folder / "artifacts").mkdir(exist_ok=True)
    except OSError as error:
        raise WrongCall(f"{name}: cannot write below {str(folder)!r}: {error.strerror}") from error


def _learn(store: Store) -> None:
    if (store.out / JOURNAL).is_file():
        with fetched(store.out, [JOURNAL]) as folder:
            merge(folder / JOURNAL, store.local / JOURNAL)
