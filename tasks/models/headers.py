"""What a reply's headers tell of the provider's limits: hints, for no provider promises them."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

_PROCESSING = ("openai-processing-ms", "x-envoy-upstream-service-time")


@dataclass(frozen=True)
class Hint:
    """A minute's limits and what is left of them, as a reply tells; None where it does not."""

    limit_requests: int | None = None
    left_requests: int | None = None
    limit_tokens: int | None = None
    left_tokens: int | None = None


def read_hint(headers: Mapping[str, str]) -> Hint | None:
    """The `x-ratelimit-*` headers, or None where there are none that make sense.

    A limit that is not positive (Azure has been seen to send -1 and 0) takes what is said of the
    same quantity with it.
    """
    told: dict[str, int | None] = {}
    for unit in ("requests", "tokens"):
        limit = _whole(headers.get(f"x-ratelimit-limit-{unit}"))
        left = _whole(headers.get(f"x-ratelimit-remaining-{unit}"))
        if limit is not None and limit <= 0:
            continue
        told[f"limit_{unit}"] = limit
        told[f"left_{unit}"] = left if left is None or left >= 0 else None
    hint = Hint(**told)
    return None if hint == Hint() else hint


def processing_s(headers: Mapping[str, str]) -> float | None:
    """How long the provider says that it worked on the call (s), or None."""
    for name in _PROCESSING:
        spent = _whole(headers.get(name))
        if spent is not None and spent >= 0:
            return spent / 1000
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that the headers ask for (in ms, in s, or as a date), or None."""
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
