"""Lines for the user about what calls report: waits, and other problems, each shown once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from neuron_atlas.tasks.models.account.messages import CallResult
from neuron_atlas.tasks.models.clean_text import one_line

_SHORTEST_WAIT_S = 10.0
_SAME_WAIT_S = 10.0
"""Waits that end at almost the same time are one."""
_LIMITS_EVERY_S = 600.0
_MOST = 100
_DAY_S = 86_400.0


class Notices:
    """Collects lines for the user. clock: seconds. lines: oldest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waits_until = self._limits_noted_at = float("-inf")
        self._no_permit_since: float | None = None
        self._counts: Counter[str] = Counter()
        self.lines: list[str] = []

    def add_result(self, result: CallResult, model: str) -> None:
        """Add what the result of a call reports."""
        self.add_wait(result.wait_s, model, result.wait_reason)
        if result.notice:
            self.add(result.notice, result.notice_after)

    def add(self, line: str, after: int = 1) -> None:
        """Add a line when it is reported for the n-th time (`after`). Lines that differ only in
        their parentheses, which quote one reply, are the same."""
        key = line.partition(" (")[0]
        self._counts[key] += 1
        if self._counts[key] == after and len(self.lines) < _MOST:
            self.lines.append(one_line(line, 1000))

    def add_wait(self, wait_s: float, model: str, reason: str) -> None:
        """Add a line about a wait of more than ten seconds, unless one that lasts as long was
        added."""
        until = self._clock() + wait_s
        if wait_s <= _SHORTEST_WAIT_S or until <= self._waits_until + _SAME_WAIT_S:
            return
        self._waits_until = until
        ends_at = time.localtime(time.time() + wait_s)
        shown = time.strftime("%Y-%m-%d %H:%M" if wait_s > _DAY_S / 2 else "%H:%M:%S", ends_at)
        self.add(f"waits {wait_s:,.0f} s, until {shown}, before it calls {model} again: {reason}")

    def add_limits(self, has_permit: bool, wait_s: float, where: str) -> None:
        """Note whether a call that was wanted got a permit. Adds a line once none did for ten
        seconds, at most every ten minutes: at its limits, a run waits all the time.

        wait_s: until the next permit, at most. where: the setting with the limits.
        """
        now = self._clock()
        if has_permit or now < self._waits_until:
            self._no_permit_since = None
            return
        since = self._no_permit_since = (
            now if self._no_permit_since is None else self._no_permit_since
        )
        if now - since < _SHORTEST_WAIT_S or now - self._limits_noted_at < _LIMITS_EVERY_S:
            return
        self._limits_noted_at = now
        self.add(
            f"has waited {now - since:.0f} s for a call within the limits in {where}; the next may "
            f"go out in {wait_s:.0f} s"
        )
