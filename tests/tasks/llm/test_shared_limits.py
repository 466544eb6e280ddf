import asyncio

import pytest

from tasks.llm.limits import Settled
from tasks.llm.settings import LimitSettings
from tasks.llm.shared_limits import Permits, SharedLimits


def test_permits_are_dealt_in_turn_to_all_who_wait():
    async def work() -> list[int]:
        limits = SharedLimits(LimitSettings(requests_per_minute=1200, concurrency=1000))
        mine, theirs = await asyncio.gather(*(hold(limits, name, 10) for name in ("me", "they")))
        return [mine, theirs]

    async def hold(limits: SharedLimits, owner: str, calls: int) -> int:
        got, deadline = 0, asyncio.get_running_loop().time() + 0.5
        while got < calls and asyncio.get_running_loop().time() < deadline:
            got += len(await limits.lease(owner, (1,) * (calls - got)))
        return got

    mine, theirs = asyncio.run(work())
    assert abs(mine - theirs) <= 2
    assert mine + theirs >= 8


def test_a_process_asks_for_a_group_of_calls_at_once():
    class Counting(SharedLimits):
        leases = 0

        async def lease(self, owner: str, wants: tuple[int, ...]) -> tuple[int, ...]:
            self.leases += 1
            return await super().lease(owner, wants)

    async def work() -> tuple[int, int]:
        limits = Counting(LimitSettings(concurrency=1000))
        async with Permits(limits, "me") as permits:
            taken = await asyncio.gather(*(permits.take(10) for _ in range(100)))
            for permit in taken:
                permits.give_back(Settled(permit))
        assert limits.throttle.in_flight == 0
        return len(set(taken)), limits.leases

    taken, leases = asyncio.run(work())
    assert taken == 100
    assert leases <= 5


def test_a_large_call_is_not_starved_by_small_ones():
    async def work() -> bool:
        limits = SharedLimits(LimitSettings(tokens_per_minute=60_000, concurrency=1000))
        large = asyncio.ensure_future(limits.lease("large", (2_000,)))
        await asyncio.sleep(0)

        async def keep_asking() -> None:
            while True:
                await limits.lease("small", (50,))

        small = asyncio.ensure_future(keep_asking())
        done, _ = await asyncio.wait([large], timeout=5)
        small.cancel()
        return bool(done)

    assert asyncio.run(work())


def test_a_permit_that_nobody_waits_for_any_more_is_given_back():
    async def work() -> tuple[int, int]:
        limits = SharedLimits(LimitSettings(concurrency=1))
        async with Permits(limits, "me") as permits:
            first = await permits.take(1)
            waiting = asyncio.ensure_future(permits.take(1))
            await asyncio.sleep(0.1)
            waiting.cancel()
            permits.give_back(Settled(first))
            again = await asyncio.wait_for(permits.take(1), 2)
            during = limits.throttle.in_flight
            permits.give_back(Settled(again))
        return during, limits.throttle.in_flight

    assert asyncio.run(work()) == (1, 0)


class Failing(SharedLimits):
    """Fails to take permits back, and to hear that somebody lives."""

    times = 0

    async def settle(self, owner: str, settled: tuple[Settled, ...]) -> None:
        self.times -= 1
        if self.times >= 0:
            raise ConnectionError("the limits are not there")
        await super().settle(owner, settled)

    async def beat(self, owner: str) -> None:
        raise ConnectionError("the limits are not there")


def test_permits_that_could_not_be_given_back_are_given_back_again():
    async def work() -> int:
        limits = Failing(LimitSettings(concurrency=1))
        limits.times = 3
        async with Permits(limits, "me") as permits:
            for _ in range(3):
                permits.give_back(Settled(await asyncio.wait_for(permits.take(1), 2)))
        return limits.throttle.in_flight

    assert asyncio.run(work()) == 0


def test_limits_that_take_nothing_back_any_more_hang_nobody():
    async def work() -> None:
        limits = Failing(LimitSettings(concurrency=1))
        limits.times = 10_000
        async with Permits(limits, "me") as permits:
            permits.give_back(Settled(await permits.take(1)))
            for _ in range(2):  # The one that waits, and the one that comes later.
                with pytest.raises(ConnectionError, match="not there"):
                    await asyncio.wait_for(permits.take(1), 5)

    asyncio.run(work())


def test_a_few_permits_are_split_between_groups_of_calls():
    async def work() -> list[int]:
        limits = SharedLimits(LimitSettings(concurrency=4))
        groups = await asyncio.gather(*(limits.lease(owner, (1,) * 4) for owner in ("me", "they")))
        return [len(group) for group in groups]

    assert asyncio.run(work()) == [2, 2]
