"""The error of a search."""

from __future__ import annotations


class SearchError(ValueError):
    """A search that cannot be made; the message is one line with the remedy."""
