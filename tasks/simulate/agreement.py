"""What a simulator finds out of its server, once for all that it will ask of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import ClientSettings, Collection, Connection, connect
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.simulator import Prediction, Question

_UNDECIDED = ("pending", "budget", "rate_limited", "timed_out")
_TURNED_DOWN = re.compile(r"HTTP 4(?!08|09|29)\d\d")


class Known(Protocol):
    """What was found out."""

    @property
    def told(self) -> str:
        """How predictions are read off the answers, as rows and the program tell it."""


K = TypeVar("K", bound=Known)
K_contra = TypeVar("K_contra", bound=Known, contravariant=True)


class Asking(Protocol[K_contra]):
    """A simulator that has something to find out."""

    @property
    def name(self) -> str:
        """See `Simulator`."""

    @property
    def wording(self) -> str:
        """See `Simulator`."""

    def check(self) -> None:
        """See `Simulator`."""

    def simulate(
        self,
        questions: Sequence[Question],
        catalog: Catalog,
        calls: Calls,
        known: K_contra | None = None,
    ) -> list[Prediction]:
        """See `Simulator`; known: what was found out, if it was."""


@dataclass(frozen=True)
class Informed(Generic[K]):
    """A simulator, once it is known what can be had of its server."""

    settings: Asking[K]
    known: K

    @property
    def name(self) -> str:
        """See `Simulator`."""
        return self.settings.name

    @property
    def wording(self) -> str:
        """See `Simulator`."""
        return self.settings.wording

    @property
    def estimator(self) -> str:
        """How predictions will be read off its answers."""
        return self.known.told

    def check(self) -> None:
        """See `Simulator`."""
        self.settings.check()

    def simulate(
        self, questions: Sequence[Question], catalog: Catalog, calls: Calls
    ) -> list[Prediction]:
        """See `Simulator`."""
        return self.settings.simulate(questions, catalog, calls, self.known)


def find_out(
    ask: Callable[[Connection | Collection], Awaitable[K | Answer]],
    client: ClientSettings,
    calls: Calls,
    prices: Mapping[str, Price],
) -> K | Answer:
    """What `ask` learns over a connection that is open as long as it asks, or the answer that
    decides nothing."""

    async def connected() -> K | Answer:
        async with connect(client, calls, prices) as connection:
            return await ask(connection)

    return asyncio.run(connected())


def decides_nothing(answer: Answer) -> bool:
    """Whether an answer says nothing of what a server can do: it waits for a batch or for money, or
    failed and might not the next time."""
    is_turned_down = _TURNED_DOWN.match(answer.reason) is not None
    return answer.status in _UNDECIDED or (answer.status == "failed" and not is_turned_down)
