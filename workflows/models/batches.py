"""Work on items whose model calls go through a provider's batch API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from neuron_atlas.tasks.artifacts.location import remove_folder
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.workflows.models.calls import OpenCalls

_CHUNK = 8192
"""Neurons whose requests lie on the disk at the same time: their pictures are large."""


class NamedItem(Protocol):
    """What is known of an item here."""

    @property
    def key(self) -> str: ...  # noqa: D102


class WorkOnItems(Protocol):
    """Works on all unfinished items: each collects the requests it has no answer to, or, where it
    has all answers, finishes."""

    def __call__(  # noqa: D102
        self,
        *,
        calls: Callable[[NamedItem], Calls],
        chunk_size: int,
        after_chunk: Callable[[], None],
    ) -> None: ...


def work_by_batch(calls: OpenCalls, spools: Path, work: WorkOnItems) -> None:
    """Collect unanswered requests, hand them in, wait for the answers, until every item is done.

    spools: a folder for the requests, removed again.
    """
    handed_in = True

    def hand_in() -> None:
        nonlocal handed_in
        collected = sorted(spools.glob("*.jsonl"))
        if collected:
            handed_in = True
            calls.hand_in(collected)
        remove_folder(spools)

    while handed_in:
        handed_in = False
        calls.wait_for_batches()
        remove_folder(spools)  # Of a run that was killed while it collected.
        work(
            calls=lambda item: calls.collecting(spools / f"{item.key}.jsonl"),
            chunk_size=_CHUNK,
            after_chunk=hand_in,
        )
