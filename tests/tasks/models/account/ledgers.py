"""Leases of an account, decided at once."""

import asyncio
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import (
    AccountMessage,
    AccountReply,
    CallResult,
    LeaseRequest,
    Permit,
    StoredAnswer,
)


def exchange(account: LocalAccount, owner: str, *items: AccountMessage) -> list[AccountReply]:
    return asyncio.run(account.exchange(owner, items))[0]


def lease(account: LocalAccount, request: str, usd: float = 0.0, owner: str = "me") -> Any:
    """A permit, a stored answer, a refusal, or "busy"; the limits are left out."""
    with account.transaction():
        account.heartbeat(owner)
        return account.lease(LeaseRequest(request, "gpt-4o", 1, usd), owner)


def settle(account: LocalAccount, owner: str, *results: CallResult) -> None:
    assert exchange(account, owner, *results) == [None] * len(results)


def look_up(account: LocalAccount, *requests: str) -> list[str | None]:
    replies = exchange(account, "me", *requests)
    return [reply.answer if isinstance(reply, StoredAnswer) else None for reply in replies]


def answer(account: LocalAccount, request: str, text: str = "{}", usd: float = 0.0) -> None:
    permit = lease(account, request, usd)
    assert isinstance(permit, Permit)
    settle(account, "me", answered(permit, text, usd))


def answered(
    permit: Permit, text: str = "{}", usd: float = 0.0, seconds: float = 1.5
) -> CallResult:
    return CallResult(
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
        return look_up(account, request)[0]
    finally:
        account.close()
