"""Where a model is served: addresses that are known, or servers that come and go during a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

_LOOK_AGAIN_S = 60.0


@dataclass(frozen=True)
class Server:
    """One server. name: the same after a restart. base_url: where the protocol is spoken now."""

    name: str
    base_url: str


@dataclass(frozen=True)
class Directory:
    """The servers that answer now. over: why there will be none any more, "" while there may."""

    servers: tuple[Server, ...] = ()
    over: str = ""


class Servers(Protocol):
    """The servers of one model, which all give the same answers.

    ours: this program started them, and starts them again. direct: they are never asked by way of a
    proxy, as they are not when it is looked whether they answer. key: what requests to them carry.
    """

    @property
    def ours(self) -> bool: ...  # noqa: D102
    @property
    def direct(self) -> bool: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102

    async def directory(self, known: Directory | None) -> Directory:
        """The servers that answer, once that is another directory than `known`, or some seconds
        have passed."""


@dataclass(frozen=True)
class FixedServers:
    """Servers that somebody else runs."""

    servers: tuple[Server, ...]
    key: str = field(repr=False)
    ours: bool = False
    direct: bool = False

    async def directory(self, known: Directory | None) -> Directory:
        """See `Servers`."""
        if known is not None:
            await asyncio.sleep(_LOOK_AGAIN_S)
        return Directory(self.servers)

    @staticmethod
    def at(base_urls: tuple[str, ...], key: str) -> FixedServers:
        """Servers at these addresses, asked directly, whose path is /v1 where it is not given.

        Raises ValueError where one is no address.
        """
        servers = []
        for url in base_urls:
            address = urlsplit(url)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError(f"{url!r} is no whole address, such as http://HOST:PORT/v1")
            if address.query or address.fragment or "@" in address.netloc:
                raise ValueError("an address must end with its path, and hold no password or key")
            base_url = url.rstrip("/") if address.path.strip("/") else f"{url.rstrip('/')}/v1"
            servers.append(Server(base_url, base_url))
        return FixedServers(tuple(servers), key, direct=True)
