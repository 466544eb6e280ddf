"""Format numbers, statuses and types for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MISSING = "\N{EN DASH}"
TYPE_MEANINGS = {
    "visual": "Excited by parts of the image, and by little in the text.",
    "text": "Excited by words of the description, and by little in the image.",
    "multi-modal": "Excited by both: by parts of the image and by words of the description.",
    "unknown": "Neither enough patches nor enough words of their exemplars stand out.",
}


def signed(value: float | None, digits: int = 2) -> str:
    """Format a number with a true minus sign; an en dash for None."""
    if value is None:
        return MISSING
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def difference(value: float | None) -> str:
    """Format a number like `signed`, with a plus sign if it is above zero."""
    text = signed(value)
    return f"+{text}" if value is not None and round(value, 2) > 0 else text


def interval(measure: Mapping[str, float | None]) -> str:
    """Format the bounds ci_low and ci_high of a measure; empty if one is None."""
    low, high = measure["ci_low"], measure["ci_high"]
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def percent(share: float | None) -> str:
    """Format a share in percent. A share above 0 is never written as 0 %."""
    if share is None:
        return MISSING
    if 0 < share < 0.005:
        return "<1\N{NO-BREAK SPACE}%"
    return f"{share * 100:.0f}\N{NO-BREAK SPACE}%"


def format_count(value: int) -> str:
    """Format a whole number with commas between groups of three digits."""
    return f"{value:,}"


def three_digits(value: float) -> str:
    """Format an activation with three significant digits: 0.123, 4.60, 1,234."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")


def small_number(value: float | None) -> str:
    """Format a number with three significant digits; an en dash for None."""
    return MISSING if value is None else three_digits(value)


def plain_status(status: str) -> str:
    """Format a status in words."""
    return status.replace("_", " ")


def scale_position(value: float, length: float = 200) -> float:
    """Return the position of a correlation (-1 to 1) on a drawn scale of `length` units."""
    return round((min(1.0, max(-1.0, value)) + 1) / 2 * length, 2)


FILTERS: dict[str, Callable[..., Any]] = {
    "signed": signed,
    "difference": difference,
    "interval": interval,
    "percent": percent,
    "count": format_count,
    "three_digits": three_digits,
    "small_number": small_number,
    "plain_status": plain_status,
    "scale_position": scale_position,
}
