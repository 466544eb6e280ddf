"""Work on items whose model calls go through a provider's batch API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuron_atlas.tasks.artifacts.location import remove_folder
from neuron_atlas.workflows.models.calls import OpenCalls

_CHUNK = 8192
"""Neurons whose requests lie on the disk at the same time: their pictures are large."""


def work_by_batch(calls: OpenCalls, spools: Path, work: Callable[..., None]) -> None:
    """Collect unanswered requests, hand them in, wait for the answers, until every item is done.

    spools: a folder for the requests, removed again. work: works on all unfinished items: each
    collects the requests it has no answer to, or, where it has all answers, finishes. It is called
    with `calls` (given an item), `chunk_size` and `after_chunk`.
    """
    handed_in = True

    def hand_in() -> None:
        nonlocal handed_in
        collected = sorted(spools.glob("*.jsonl"))
        if collected:
            handed_in = True
            calls.account.hand_in(collected)
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
