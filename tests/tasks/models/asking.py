"""One question, asked of a provider on loopback."""

import asyncio
from dataclasses import replace

from neuron_atlas.tasks.models.account.messages import Account
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, ClientSettings, connect
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request import Request
from tests.loopback.fixture import Loopback

PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
QUESTION = Request([{"role": "user", "content": "What does the neuron like?"}], {"seed": 0})


def quick(loopback: Loopback, /, **changes: object) -> ClientSettings:
    settings = ClientSettings(base_url=loopback.base_url, backoff_s=0.01, timeout_s=5.0)
    return replace(settings, **changes)  # type: ignore[arg-type]


def ask(
    settings: ClientSettings, account: Account | None = None, request: Request = QUESTION
) -> Answer:
    async def once() -> Answer:
        async with connect(settings, CallOptions(account), PRICES) as connection:
            return await connection.ask(request)

    return asyncio.run(once())


def words(text: str) -> Request:
    return Request([{"role": "user", "content": text}], {"seed": 0})
