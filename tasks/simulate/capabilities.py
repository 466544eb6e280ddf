"""Probe a simulator's server: one connection for the probe, and which answers decide nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import ClientSettings, Collection, Connection, connect
from neuron_atlas.tasks.models.prices import Price

Found = TypeVar("Found")

_UNDECIDED = ("pending", "budget", "rate_limited", "timed_out")
_REFUSED = re.compile(r"HTTP 4(?!08|09|29)\d\d")


def probe_server(
    request: Callable[[Connection | Collection], Awaitable[Found | Answer]],
    client: ClientSettings,
    calls: Calls,
    prices: Mapping[str, Price],
) -> Found | None:
    """Return what `request` finds out over a connection of its own; None if its answer decides
    nothing. Raises Unusable."""

    async def connected() -> Found | Answer:
        async with connect(client, calls, prices) as connection:
            return await request(connection)

    found = asyncio.run(connected())
    return None if isinstance(found, Answer) else found


def is_undecided(answer: Answer) -> bool:
    """Return whether an answer shows nothing of what a server can do: it waits for a batch or for
    budget, or its failure may pass."""
    is_refused = _REFUSED.match(answer.reason) is not None
    return answer.status in _UNDECIDED or (answer.status == "failed" and not is_refused)
