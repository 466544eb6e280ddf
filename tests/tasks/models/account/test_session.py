"""Who gets the permits of an account, and how one process asks for them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import Permit, Reply, Result, Want
from neuron_atlas.tasks.models.account.session import AccountSession
from neuron_atlas.tasks.models.settings import LimitSettings


def want(request: str, tokens: int = 1) -> Want:
    return Want(request, "gpt-4o", tokens, 0.0)


def test_of_one_program_whoever_has_asked_for_the_longest_is_served_first():
    async def work() -> list[str]:
        account = LocalAccount(limits=LimitSettings(concurrency=1))
        served: list[str] = []
        settling: list[asyncio.Task[None]] = []

        async def settle_later(owner: str, permit: Permit) -> None:
            await asyncio.sleep(0.05)  # By then the owner has asked again.
            await account.settle(owner, [Result(permit.call, "ok")])

        async def hold(owner: str) -> None:
            wants = [want(f"{owner} {number}") for number in range(3)]
            while wants:
                for index, reply in await account.lease(owner, wants):
                    assert isinstance(reply, Permit)
                    served.append(owner)
                    del wants[index]
                    settling.append(asyncio.ensure_future(settle_later(owner, reply)))

        await asyncio.gather(hold("first"), hold("second"), hold("third"))
        await asyncio.gather(*settling)
        return served

    assert asyncio.run(work()) == ["first"] * 3 + ["second"] * 3 + ["third"] * 3


def test_what_the_first_leaves_free_the_next_one_has():
    async def work() -> int:
        account = LocalAccount(limits=LimitSettings(concurrency=4))
        await account.lease("me", [want(f"{number}") for number in range(3)])
        return len(await account.lease("they", [want(f"their {number}") for number in range(4)]))

    assert asyncio.run(work()) == 1


def test_a_process_asks_for_a_group_of_calls_at_once(tmp_path: Path):
    class Counting(LocalAccount):
        leases = settles = 0

        async def lease(self, owner: str, wants: Sequence[Want]) -> list[tuple[int, Reply]]:
            self.leases += 1
            return await super().lease(owner, wants)

        async def settle(self, owner: str, results: Sequence[Result]) -> None:
            self.settles += 1
            await super().settle(owner, results)

    async def work() -> tuple[int, int, int]:
        account = Counting(tmp_path / "journal.db", limits=LimitSettings(concurrency=1000))
        async with AccountSession(account, "me") as session:
            permits = await asyncio.gather(*(session.lease(want(f"{n}")) for n in range(100)))
            calls = [reply.call for reply in permits if isinstance(reply, Permit)]
            await asyncio.gather(*(session.settle(Result(call, "ok")) for call in calls))
        return len(set(calls)), account.leases, account.settles

    calls, leases, settles = asyncio.run(work())
    assert calls == 100
    assert leases <= 5
    assert settles <= 5


def test_a_large_call_is_not_starved_by_small_ones():
    async def work() -> bool:
        limits = LimitSettings(tokens_per_minute=60_000, concurrency=1000)
        account = LocalAccount(limits=limits)

        async def large() -> None:
            while not await account.lease("large", [want("large", 2_000)]):
                pass

        async def small() -> None:
            number = 0
            while True:
                number += 1
                await account.lease("small", [want(f"{number}", 50)])

        served = asyncio.ensure_future(large())
        await asyncio.sleep(0)
        asking = asyncio.ensure_future(small())
        done, _ = await asyncio.wait([served], timeout=5)
        asking.cancel()
        return bool(done)

    assert asyncio.run(work())


def test_a_permit_that_nobody_waits_for_any_more_is_given_back():
    async def work() -> float:
        account = LocalAccount(limits=LimitSettings(concurrency=1))
        async with AccountSession(account, "me") as session:
            first = await session.lease(want("first"))
            waiting = asyncio.ensure_future(session.lease(want("cancelled")))
            await asyncio.sleep(0.1)
            waiting.cancel()
            assert isinstance(first, Permit)
            await session.settle(Result(first.call, "ok"))
            again = await asyncio.wait_for(session.lease(want("again")), 5)
            assert isinstance(again, Permit)
            await session.settle(Result(again.call, "ok"))
        return (await account.tally()).held_usd

    assert asyncio.run(work()) == 0


def test_a_request_that_is_busy_does_not_hold_up_those_after_it():
    async def work() -> None:
        account = LocalAccount()
        async with AccountSession(account, "they") as they, AccountSession(account, "me") as me:
            await they.lease(want("same"))
            busy = asyncio.ensure_future(me.lease(want("same")))
            await asyncio.sleep(0.05)
            assert isinstance(await asyncio.wait_for(me.lease(want("other")), 10), Permit)
            assert not busy.done()
            busy.cancel()

    asyncio.run(work())


def test_an_account_that_fails_hangs_nobody():
    class Failing(LocalAccount):
        async def lease(self, owner: str, wants: Sequence[Want]) -> list[tuple[int, Reply]]:
            raise ConnectionError("the account is not there")

        async def settle(self, owner: str, results: Sequence[Result]) -> None:
            raise ConnectionError("the account is not there")

    async def work() -> None:
        async with AccountSession(Failing(), "me") as session:
            asked = (session.lease(want("a")), session.settle(Result(1, "ok")))
            for one in asked:
                with pytest.raises(ConnectionError, match="not there"):
                    await asyncio.wait_for(one, 5)

    asyncio.run(work())


def test_an_error_in_a_turn_reaches_all_that_wait():
    def broken(*_: object) -> tuple[list[int], float]:
        raise ConnectionError("the limits are not there")

    async def work() -> None:
        account = LocalAccount(deal=broken)
        with pytest.raises(ConnectionError, match="not there"):
            await asyncio.wait_for(account.lease("me", [want("a")]), 5)

    asyncio.run(work())
