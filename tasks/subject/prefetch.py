"""Prepare samples on other threads while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def prefetch(
    items: Iterable[Item], prepare: Callable[[Item], Prepared], threads: int, ahead: int
) -> Iterator[Prepared]:
    """Yield `map(prepare, items)` in order, with up to `ahead` items prepared in advance.

    threads: number of preparing threads; with 0, each item is prepared on request. An error of
    `prepare` is raised at its item.
    """
    if threads == 0:
        yield from map(prepare, items)
        return
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        pending: deque[Future[Prepared]] = deque(
            pool.submit(prepare, item) for item in islice(remaining, ahead)
        )
        while pending:
            first = pending.popleft()
            pending.extend(pool.submit(prepare, item) for item in islice(remaining, 1))
            yield first.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
