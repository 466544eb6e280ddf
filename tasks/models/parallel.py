"""Run many coroutines concurrently in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_parallel(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], concurrency: int
) -> list[R]:
    """Await `work` for every item, at most `concurrency` at a time; return results in item order.

    Items are read one by one, so there may be any number. The first exception cancels the running
    work and is raised.
    """
    results: dict[int, R] = {}
    waiting = enumerate(items)

    async def run_worker() -> None:
        for index, item in waiting:
            results[index] = await work(item)

    workers = [asyncio.ensure_future(run_worker()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(results))]
