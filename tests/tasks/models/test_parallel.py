import asyncio

import pytest

from neuron_atlas.tasks.models.client import ProviderError, in_parallel


def test_work_is_done_in_parallel_up_to_the_limit_and_kept_in_order():
    busy = most = 0

    async def work(item: int) -> int:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01 * (item % 3))
        busy -= 1
        return 10 * item

    assert asyncio.run(in_parallel(work, range(12), 4)) == [10 * item for item in range(12)]
    assert most == 4


def test_the_first_exception_stops_the_rest_of_the_work():
    finished: list[int] = []

    async def work(item: int) -> None:
        if item == 1:
            raise ProviderError("no key")
        await asyncio.sleep(0.2)
        finished.append(item)

    with pytest.raises(ProviderError, match="no key"):
        asyncio.run(in_parallel(work, range(100), 4))
    assert finished == []
