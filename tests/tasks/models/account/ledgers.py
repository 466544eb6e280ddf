"""Leases of an account, decided at once."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import Permit, Result, Want

T = TypeVar("T")


def now(work: Awaitable[T]) -> T:
    async def wait() -> T:
        return await work

    return asyncio.run(wait())


async def try_lease(
    account: LocalAccount, request: str, usd: float = 0.0, owner: str = "me"
) -> Any:
    """A permit, a stored answer, a refusal, or "busy"; the limits are left out."""
    want = Want(request, "gpt-4o", 1, usd)

    return await account.do(lambda ledger: ledger.lease(want, owner), owner)


def lease(account: LocalAccount, request: str, usd: float = 0.0, owner: str = "me") -> Any:
    return now(try_lease(account, request, usd, owner))


async def answer(account: LocalAccount, request: str, text: str = "{}", usd: float = 0.0) -> None:
    permit = await try_lease(account, request, usd)
    assert isinstance(permit, Permit)
    await account.settle("me", [answered(permit, text, usd)])


def answered(permit: Permit, text: str = "{}", usd: float = 0.0, seconds: float = 1.5) -> Result:
    return Result(
        permit.call,
        "ok",
        answer=text,
        usd=usd,
        tokens_in=100,
        tokens_out=10,
        seconds=seconds,
    )


def stored(path: Path, request: str) -> str | None:
    """The answer that an account in this file has."""
    account = LocalAccount(path)
    try:
        return now(account.look_up("me", [request]))[0]
    finally:
        account.close()
