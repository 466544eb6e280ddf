import asyncio

import pytest

from neuron_atlas.tasks.models.limits import Settled
from neuron_atlas.tasks.models.settings import LimitSettings
from neuron_atlas.tasks.models.shared_limits import Permits, SharedLimits


def test_of_one_program_whoever_has_asked_for_the_longest_is_served_first():
    async def work() -> list[str]:
        limits = SharedLimits(LimitSettings(concurrency=1))
        served: list[str] = []

        async def hold(owner: str, calls: int) -> None:
            for _ in range(calls):
                (permit,) = await limits.lease(owner, (1,))
                served.append(owner)
                await asyncio.sleep(0)  # Others ask meanwhile.
                await limits.settle(owner, (Settled(permit),))

        await asyncio.gather(hold("first", 3), hold("second", 3), hold("third", 3))
        return served

    assert asyncio.run(work()) == ["first"] * 3 + ["second"] * 3 + ["third"] * 3


def test_programs_are_served_in_turn():
    async def work() -> str:
        limits = SharedLimits(LimitSettings(concurrency=1))
        served: list[str] = []

        async def hold(program: str, owner: str) -> None:
            for _ in range(3):
                (permit,) = await limits.lease(owner, (1,), program)
                served.append(program)
                await asyncio.sleep(0)
                await limits.settle(owner, (Settled(permit),))

        await asyncio.gather(hold("a", "one"), hold("a", "two"), hold("b", "three"))
        return "".join(served)

    assert asyncio.run(work()) == "abababaaa"


def test_what_the_first_leaves_free_the_next_one_has():
    async def work() -> int:
        limits = SharedLimits(LimitSettings(concurrency=4))
        await limits.lease("me", (1,) * 3)
        return len(await limits.lease("they", (1,) * 4))

    assert asyncio.run(work()) == 1


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


def test_a_group_gets_the_permits_that_there_are():
    async def work() -> tuple[int, bool]:
        limits = SharedLimits(LimitSettings(concurrency=4))
        mine = await limits.lease("me", (1,) * 10)
        theirs = asyncio.ensure_future(limits.lease("they", (1,)))
        await asyncio.sleep(0.05)
        return len(mine), theirs.done()

    assert asyncio.run(work()) == (4, False)
