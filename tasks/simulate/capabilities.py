"""Probe a simulator's server over its own connection, and recognize inconclusive answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from neuron_atlas.tasks.models.answer import NO_COMPLETION, Answer
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings, Collection, Connection, connect
from neuron_atlas.tasks.models.prices import Price

Found = TypeVar("Found")

_UNDECIDED = ("pending", "budget", "rate_limited", "timed_out")
_REFUSED = re.compile(r"HTTP 4(?!08|09|29)\d\d")


def probe_server(
    request: Callable[[Connection | Collection], Awaitable[Found | Answer]],
    client: ClientSettings,
    calls: CallOptions,
    prices: Mapping[str, Price],
) -> Found | None:
    """Return the result of `request` over its own connection; None if its answer is inconclusive.

    Raises ProviderError.
    """

    async def probe() -> Found | Answer:
        async with connect(client, calls, prices) as connection:
            return await request(connection)

    found = asyncio.run(probe())
    return None if isinstance(found, Answer) else found


def is_undecided(answer: Answer) -> bool:
    """Return whether an answer leaves the server's capabilities open.

    Such an answer waits for a batch or for budget, or its failure is transient, or the reply held
    none.
    """
    is_refused = _REFUSED.match(answer.reason) is not None
    is_no_answer = answer.reason.startswith(NO_COMPLETION)
    return (
        answer.status in _UNDECIDED
        or (answer.status == "failed" and not is_refused)
        or is_no_answer
    )
