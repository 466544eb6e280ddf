"""Many pieces of work at once, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_parallel(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], concurrency: int
) -> list[R]:
    """`work` done on every item, at most `concurrency` at once; results in the items' order.

    Items are taken up as there is room, so their number costs nothing. The first exception stops
    all the rest and is raised.
    """
    results: dict[int, R] = {}
    waiting = enumerate(items)

    async def take() -> None:
        for place, item in waiting:
            results[place] = await work(item)

    takers = [asyncio.ensure_future(take()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*takers)
    finally:
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
    return [results[place] for place in range(len(results))]
