"""Choose a server for each request to a model, and react to failed servers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import urlsplit
from zlib import crc32

_SKIP_S = 30.0


class Servers(Protocol):
    """The servers of one model.

    key: sent with each request. is_own: this program started them, so they bill nothing.
    """

    key: str
    is_own: bool

    async def ready(self) -> None:
        """Wait until there is a server to send to. Raises ProviderStoppedError if there will be
        none."""

    def choose(self, affinity: str) -> str:
        """Return the base_url for a request. Requests of one affinity share a server's cache."""

    def mark_answered(self, base_url: str) -> None:
        """Note that a server answered, with success or not."""

    def mark_unreachable(self, base_url: str) -> bool:
        """Note that a server could not be reached. Returns whether the request can be sent again
        immediately, without counting an attempt."""

    def mark_timed_out(self, base_url: str, timeout_s: float) -> None:
        """Note that a server did not answer a request in time."""


class FixedServers:
    """Servers at fixed addresses. One that cannot be reached, or did not answer in time, is skipped
    for 30 s while there is another."""

    is_own = False

    def __init__(self, base_urls: Iterable[str], key: str) -> None:
        self._base_urls, self.key = tuple(base_urls), key
        self._skipped: dict[str, float] = {}

    async def ready(self) -> None:
        """See `Servers`."""

    def choose(self, affinity: str) -> str:
        """See `Servers`: the address that the affinity's hash names, or the next one."""
        first = crc32(affinity.encode("utf-8", "surrogatepass")) % len(self._base_urls)
        order = self._base_urls[first:] + self._base_urls[:first]
        return next((url for url in order if not self._is_skipped(url)), order[0])

    def mark_answered(self, base_url: str) -> None:
        """See `Servers`."""
        self._skipped.pop(base_url, None)

    def mark_unreachable(self, base_url: str) -> bool:
        """See `Servers`."""
        self._skipped[base_url] = time.monotonic() + _SKIP_S
        return not all(map(self._is_skipped, self._base_urls))

    def mark_timed_out(self, base_url: str, timeout_s: float) -> None:
        """See `Servers`."""
        self._skipped[base_url] = time.monotonic() + _SKIP_S

    def _is_skipped(self, base_url: str) -> bool:
        return self._skipped.get(base_url, 0.0) > time.monotonic()


def complete_url(base_url: str) -> str:
    """Return an address with a path, /v1 by default. Raises ValueError if it is malformed."""
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{base_url!r} is not a complete address, such as http://HOST:PORT/v1")
    if address.query or address.fragment or "@" in address.netloc:
        raise ValueError(
            "an address must end with its path, and must not contain a password or key"
        )
    return base_url.rstrip("/") if address.path.strip("/") else f"{base_url.rstrip('/')}/v1"
