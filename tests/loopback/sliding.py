"""Limits as the real provider enforces them: over a sliding minute, failed calls included."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from tests.loopback.protocol import Rejection


@dataclass
class SlidingLimits:
    """Requests and tokens in the last `window_s`; None for no limit.

    A request counts when it comes, whatever becomes of it. Its tokens count if it is let in, and
    for what it asks: those of its prompt, and the most that its answer may have.
    """

    requests: int | None
    tokens: int | None
    window_s: float = 60.0
    _counted: deque[tuple[float, int]] = field(default_factory=deque)
    _spent: int = 0

    def admit(self, tokens: int) -> dict[str, str]:
        """Let a request in; the headers that tell of it. Raises Rejection with its headers."""
        now = time.monotonic()
        while self._counted and self._counted[0][0] <= now - self.window_s:
            self._spent -= self._counted.popleft()[1]
        kind = self._exceeded(tokens)
        charged = 0 if kind else tokens
        self._counted.append((now, charged))
        self._spent += charged
        headers = self._headers(now)
        if kind:
            wait_s = max(self._counted[0][0] + self.window_s - now, 0.001)
            raise Rejection(
                429,
                f"Rate limit reached for the model on {kind} per min. Please try again in "
                f"{wait_s:.3f}s.",
                kind=kind,
                code="rate_limit_exceeded",
                headers=headers | {"retry-after-ms": str(int(wait_s * 1000) + 1)},
            )
        return headers

    def _exceeded(self, tokens: int) -> str | None:
        if self.requests is not None and len(self._counted) >= self.requests:
            return "requests"
        if self.tokens is not None and self._spent + tokens > self.tokens:
            return "tokens"
        return None

    def _headers(self, now: float) -> dict[str, str]:
        headers = {}
        reset_s = self._counted[0][0] + self.window_s - now if self._counted else 0.0
        for name, limit, used in (
            ("requests", self.requests, len(self._counted)),
            ("tokens", self.tokens, self._spent),
        ):
            if limit is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(limit - used, 0))
                headers[f"x-ratelimit-reset-{name}"] = f"{int(reset_s * 1000)}ms"
        return headers
