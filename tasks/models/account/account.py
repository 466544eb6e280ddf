"""An account in this process: the ledger, and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from neuron_atlas.tasks.models.account.batches import hold_open_batches
from neuron_atlas.tasks.models.account.ledger import Ledger
from neuron_atlas.tasks.models.account.messages import (
    AccountMessage,
    AccountReply,
    CallResult,
    FeatureReport,
    LeaseRequest,
    StoredAnswer,
    Usage,
)
from neuron_atlas.tasks.models.account.throttle import Throttle
from neuron_atlas.tasks.models.settings import LimitSettings

_SHORTEST_WAIT_S = 0.02
_LONGEST_WAIT_S = 0.1
_WAIT_FOR_OTHERS_S = 0.25
"""Wait of an owner that is not next in line, or whose answer another call is fetching."""
_IN_LINE_S = 1.0
"""An owner that has to wait keeps its place in line for this long."""


class LocalAccount(Ledger):
    """The `Account` of one purpose, for any threads and event loops of this process.

    limits: those of this process. The other arguments are those of `Ledger` and of
    `Ledger.take_over`.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        purpose: str = "explain",
        budget_usd: float | None = None,
        limits: LimitSettings | None = None,
        *,
        has_callers: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(None if path is None else Path(path), purpose, budget_usd, clock)
        self._throttle = Throttle(limits or LimitSettings())
        self._in_line: dict[str, float] = {}
        with self.transaction():
            hold_open_batches(self)
            self.take_over(has_callers=has_callers)

    async def exchange(
        self, owner: str, items: Sequence[AccountMessage]
    ) -> tuple[list[AccountReply], float]:
        """See `Account`."""
        with self.transaction():
            self.heartbeat(owner)
            replies = [self._reply(item) for item in items]
        free = [
            (index, item)
            for index, item in enumerate(items)
            if isinstance(item, LeaseRequest) and replies[index] == "free"
        ]
        permits, wait_s = await self._permits(owner, [want for _, want in free])
        if permits:
            with self.transaction():
                for (index, want), permit in zip(free, permits, strict=False):
                    replies[index] = self.lease(want, owner, permit)
        return replies, wait_s

    async def exchange_permits(
        self, used: Sequence[tuple[int, Usage]], wants: Sequence[int]
    ) -> tuple[list[int], float]:
        """See `Throttle.exchange_permits`."""
        return self._throttle.exchange_permits("", used, wants)

    def _reply(self, item: AccountMessage) -> AccountReply:
        if isinstance(item, LeaseRequest):
            return self.decide(item)
        if isinstance(item, CallResult):
            self.settle(item)
            return None
        if isinstance(item, FeatureReport):
            return self.update_features(item)
        answer = self.look_up(item)
        return None if answer is None else StoredAnswer(answer)

    async def _permits(self, owner: str, wants: Sequence[LeaseRequest]) -> tuple[list[int], float]:
        """Return permits for the first calls of an owner, and the seconds to wait for the others.

        Only the oldest waiting owner gets permits. With
        round-robin, owners that begin together would end together, and the last calls of all would
        leave the limits unused.
        """
        now = time.monotonic()
        self._in_line = {one: at for one, at in self._in_line.items() if now - at < _IN_LINE_S}
        if wants:
            self._in_line[owner] = now
        line = (one for one in list(self.heartbeats) if one == owner or one in self._in_line)
        is_next = next(line) == owner
        used, self.used = self.used, []
        tokens = [want.tokens for want in wants] if is_next else []
        permits, wait_s = await self.exchange_permits(used, tokens)
        if tokens:
            self.notices.add_limits(bool(permits), wait_s, f"{self.purpose}.client.limits")
        if len(permits) == len(wants):
            self._in_line.pop(owner, None)
        elif is_next:
            return permits, min(max(wait_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)
        return permits, _WAIT_FOR_OTHERS_S
