"""The error of a probe that cannot be made."""

from __future__ import annotations


class ProbeError(ValueError):
    """A probe was called with something it cannot use; the message is one line with the remedy."""
