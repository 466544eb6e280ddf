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
    """`map(prepare, items)` in the same order, at most `ahead` of them prepared in advance.

    threads: that prepare; with 0 each item is prepared when it is asked for. An error of
    `prepare` is raised when its item's turn comes.
    """
    if threads == 0:
        yield from map(prepare, items)
        return
    waiting = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        under_way: deque[Future[Prepared]] = deque(
            pool.submit(prepare, item) for item in islice(waiting, ahead)
        )
        while under_way:
            first = under_way.popleft()
            under_way.extend(pool.submit(prepare, item) for item in islice(waiting, 1))
            yield first.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
