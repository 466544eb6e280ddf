"""Who gets the permits of an account, and how one process asks for them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import (
    AccountMessage,
    AccountReply,
    CallResult,
    LeaseRequest,
    Permit,
    StoredAnswer,
)
from neuron_atlas.tasks.models.account.session import AccountSession
from neuron_atlas.tasks.models.settings import LimitSettings
from tests.tasks.models.account.ledgers import exchange


def want(request: str, tokens: int = 1) -> LeaseRequest:
    return LeaseRequest(request, "gpt-4o", tokens, 0.0)


def test_of_one_program_whoever_has_asked_for_the_longest_is_served_first():
    async def work() -> list[str]:
        account = LocalAccount(limits=LimitSettings(concurrency=1))
        served: list[str] = []

        async def call(session: AccountSession, owner: str, number: int) -> None:
            permit = await session.lease(want(f"{owner} {number}"))
            assert isinstance(permit, Permit)
            served.append(owner)
            await asyncio.sleep(0.05)
            await session.settle(CallResult(permit.call, "ok"))

        async def hold(owner: str) -> None:
            async with AccountSession(account, owner) as session:
                await asyncio.gather(*(call(session, owner, number) for number in range(3)))

        await asyncio.gather(hold("first"), hold("second"), hold("third"))
        return served

    assert asyncio.run(work()) == ["first"] * 3 + ["second"] * 3 + ["third"] * 3


def test_what_the_first_leaves_free_the_next_one_has():
    account = LocalAccount(limits=LimitSettings(concurrency=4))
    exchange(account, "me", *(want(f"{number}") for number in range(3)))
    replies = exchange(account, "they", *(want(f"their {number}") for number in range(4)))
    assert [isinstance(reply, Permit) for reply in replies] == [True, False, False, False]


def test_a_process_asks_for_a_group_of_calls_at_once(tmp_path: Path):
    class Counting(LocalAccount):
        exchanges = 0

        async def exchange(
            self, owner: str, items: Sequence[AccountMessage]
        ) -> tuple[list[AccountReply], float]:
            self.exchanges += 1
            return await super().exchange(owner, items)

    async def work() -> tuple[int, int]:
        account = Counting(tmp_path / "journal.db", limits=LimitSettings(concurrency=1000))
        async with AccountSession(account, "me") as session:
            permits = await asyncio.gather(*(session.lease(want(f"{n}")) for n in range(100)))
            calls = [reply.call for reply in permits if isinstance(reply, Permit)]
            await asyncio.gather(*(session.settle(CallResult(call, "ok")) for call in calls))
        return len(set(calls)), account.exchanges

    calls, exchanges = asyncio.run(work())
    assert calls == 100
    assert exchanges <= 5


def test_a_large_call_is_not_starved_by_small_ones():
    async def work() -> bool:
        limits = LimitSettings(tokens_per_minute=60_000, concurrency=1000)
        account = LocalAccount(limits=limits)

        async def small(session: AccountSession) -> None:
            number = 0
            while True:
                number += 1
                await session.lease(want(f"{number}", 50))

        async with AccountSession(account, "large") as one, AccountSession(account, "small") as two:
            await one.lease(want("first", 5_000))
            served = asyncio.ensure_future(one.lease(want("large", 2_000)))
            await asyncio.sleep(0.05)
            asking = asyncio.ensure_future(small(two))
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
            await session.settle(CallResult(first.call, "ok"))
            again = await asyncio.wait_for(session.lease(want("again")), 5)
            assert isinstance(again, Permit)
            await session.settle(CallResult(again.call, "ok"))
        return account.tally().held_usd

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
        async def exchange(
            self, owner: str, items: Sequence[AccountMessage]
        ) -> tuple[list[AccountReply], float]:
            raise ConnectionError("the account is not there")

    async def work() -> None:
        async with AccountSession(Failing(), "me") as session:
            asked = (session.lease(want("a")), session.settle(CallResult(1, "ok")))
            for one in asked:
                with pytest.raises(ConnectionError, match="not there"):
                    await asyncio.wait_for(one, 5)

    asyncio.run(work())


def test_limits_that_fail_hang_nobody():
    class Broken(LocalAccount):
        async def exchange_permits(self, *_: object) -> tuple[list[int], float]:
            raise ConnectionError("the limits are not there")

    async def work() -> None:
        async with AccountSession(Broken(), "me") as session:
            with pytest.raises(ConnectionError, match="not there"):
                await asyncio.wait_for(session.lease(want("a")), 5)

    asyncio.run(work())


def test_an_answer_is_stored_even_if_its_caller_is_cancelled_while_it_is_written():
    class Slow(LocalAccount):
        async def exchange(
            self, owner: str, items: Sequence[AccountMessage]
        ) -> tuple[list[AccountReply], float]:
            await asyncio.sleep(0.1)
            return await super().exchange(owner, items)

    account = Slow()

    async def cancelled_while_settling(seconds: float) -> None:
        async with AccountSession(account, "me") as session:
            request = f"{seconds}"
            permit = await session.lease(want(request))
            assert isinstance(permit, Permit)
            answer = CallResult(permit.call, "ok", answer='"paid"')
            settling = asyncio.ensure_future(session.settle(answer))
            await asyncio.sleep(seconds)
            settling.cancel()
            await asyncio.wait([settling])
            assert settling.cancelled()
            assert await session.look_up(request) == '"paid"'

    for seconds in (0.0, 0.05):
        asyncio.run(cancelled_while_settling(seconds))


def test_an_owner_that_leaves_reserves_nothing_more():
    account = LocalAccount()

    async def work() -> None:
        async with AccountSession(account, "me") as session:
            assert isinstance(await session.lease(LeaseRequest("sent", "gpt-4o", 1, 1.0)), Permit)
            waiting = asyncio.ensure_future(
                session.lease(LeaseRequest("not sent", "gpt-4o", 1, 1.0))
            )
            await asyncio.sleep(0)
            waiting.cancel()

    asyncio.run(work())
    tally = account.tally()
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (1, 1.0, 0)


def test_one_that_delivered_everything_leaves_no_file(tmp_path: Path):
    account = LocalAccount(tmp_path / "journal.db")
    folder = account.received_folder
    assert folder is not None

    async def work() -> None:
        async with AccountSession(account, "me") as session:
            permit = await session.lease(want("a"))
            assert isinstance(permit, Permit)
            await session.settle(CallResult(permit.call, "ok", "a", answer='"red"'))
            assert len(list(folder.iterdir())) == 1

    asyncio.run(work())
    assert list(folder.iterdir()) == []


def test_one_that_could_not_deliver_leaves_its_answers_to_the_next_run(tmp_path: Path):
    class Failing(LocalAccount):
        async def exchange(
            self, owner: str, items: Sequence[AccountMessage]
        ) -> tuple[list[AccountReply], float]:
            if any(isinstance(item, CallResult) for item in items):
                raise ConnectionError("the account is not there")
            return await super().exchange(owner, items)

    async def work() -> None:
        account = Failing(tmp_path / "journal.db")
        async with AccountSession(account, "me") as session:
            permit = await session.lease(want("a"))
            assert isinstance(permit, Permit)
            with pytest.raises(ConnectionError):
                await session.settle(CallResult(permit.call, "ok", "a", answer='"red"'))

    asyncio.run(work())
    assert exchange(LocalAccount(tmp_path / "journal.db"), "me", "a") == [StoredAnswer('"red"')]
