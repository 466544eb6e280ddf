"""Read a provider's limits from reply headers. They are hints: no provider guarantees them."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

_PROCESSING = ("openai-processing-ms", "x-envoy-upstream-service-time")


@dataclass(frozen=True)
class RateLimitHint:
    """Limits per minute and the unused rest, as reported by a reply; None if not reported."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None


def read_hint(headers: Mapping[str, str]) -> RateLimitHint | None:
    """Read the `x-ratelimit-*` headers; None if none of them is usable.

    If a limit is not positive (Azure sends -1 and 0 at times), the rest of the same quantity is
    ignored too.
    """
    found: dict[str, int | None] = {}
    for unit in ("requests", "tokens"):
        limit = _whole(headers.get(f"x-ratelimit-limit-{unit}"))
        left = _whole(headers.get(f"x-ratelimit-remaining-{unit}"))
        if limit is not None and limit <= 0:
            continue
        found[f"limit_{unit}"] = limit
        found[f"remaining_{unit}"] = left if left is None or left >= 0 else None
    hint = RateLimitHint(**found)
    return None if hint == RateLimitHint() else hint


def processing_s(headers: Mapping[str, str]) -> float | None:
    """Return the provider's processing time of the call in seconds, or None."""
    for name in _PROCESSING:
        spent = _whole(headers.get(name))
        if spent is not None and spent >= 0:
            return spent / 1000
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the requested wait in seconds, or None. Headers give it in ms, in s or as a date."""
    for header, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(header, "")) * unit
        except ValueError:
            continue
        if math.isfinite(wait_s):
            return max(wait_s, 0.0)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(date.timestamp() - time.time(), 0.0)


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(float(text))
    except (ValueError, OverflowError):
        return None
