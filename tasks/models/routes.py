"""Which of several servers gets a request.

Requests of one affinity go to one server for as long as the same servers answer, so that it has
their common beginning in its cache: of all servers the one whose name and the affinity have the
highest hash (rendezvous hashing). When a server dies, its requests, and no others, go to those that
are left, and come back to it once it answers again. Where none is left they wait for one.

Who started servers knows which of them answer. Of somebody else's it is only seen by asking, so one
that is not heard of is left alone, longer each time, and then tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

import openai

from neuron_atlas.tasks.models.failures import Stopped
from neuron_atlas.tasks.models.servers import Directory, Server, Servers

_AVOID_S = 2.0
"""How long a server that could not be reached is left alone."""
_LONGEST_AVOID_S = 60.0
"""The same for one of somebody else's, once it could not be reached again and again."""
_EXCUSED_S = 120.0
"""For so long, one that is said to answer may be out of reach; then that is a failure."""
_LOOK_EVERY_S = 0.2
_TRY_AGAIN_S = 0.5


class Routes:
    """One connection's ways to the servers of a model; a context for the running event loop.

    open_client: given an address, the library's client for it. Clients are closed at the end.
    """

    def __init__(self, servers: Servers, open_client: Callable[[str], openai.AsyncOpenAI]) -> None:
        self._servers, self._open_client = servers, open_client
        self._directory = Directory()
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        self._avoided: dict[str, float] = {}
        self._avoid_s: dict[str, float] = {}
        self._missed_since: dict[str, float] = {}
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Routes:
        self._directory = await self._servers.directory(None)
        self._following = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._following is not None
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        for client in self._clients.values():
            await client.close()

    @property
    def ours(self) -> bool:
        """See `Servers`."""
        return self._servers.ours

    async def ready(self) -> None:
        """Wait until there is a server to send to. Raises Stopped where there will be none."""
        while not self._reachable() and self.ours:
            if self._directory.over:
                raise Stopped(self._directory.over)
            await asyncio.sleep(_LOOK_EVERY_S)

    def choose(self, affinity: str) -> Server | None:
        """The server for requests of an affinity; None where none can be reached now."""
        among = self._reachable() or ([] if self.ours else list(self._directory.servers))
        return max(among, key=lambda server: _weight(affinity, server.name), default=None)

    def client(self, server: Server) -> openai.AsyncOpenAI:
        """The client for a server."""
        if server.base_url not in self._clients:
            self._clients[server.base_url] = self._open_client(server.base_url)
        return self._clients[server.base_url]

    def reached(self, server: Server) -> None:
        """A server has answered, whatever it said."""
        for known in (self._missed_since, self._avoided, self._avoid_s):
            known.pop(server.base_url, None)

    def missed(self, server: Server) -> bool:
        """A server could not be reached; whether that is nothing to count against the request: it
        can go to another, or the server is about to be started again."""
        now = time.monotonic()
        self._avoid(server, _AVOID_S)
        since = self._missed_since.setdefault(server.base_url, now)
        if self.ours:
            return now - since < _EXCUSED_S
        return bool(self._reachable())

    def silent(self, server: Server) -> None:
        """A server was asked and has not answered in time. One of somebody else's may never do so
        again, and its next requests go to the others; ours are watched by those who keep them."""
        if not self.ours:
            self._avoid(server, _LONGEST_AVOID_S)

    def _avoid(self, server: Server, least_s: float) -> None:
        """Leave a server alone; what else was under way to it meanwhile counts as the same miss."""
        url, now = server.base_url, time.monotonic()
        if self._avoided.get(url, 0.0) > now:
            return
        seconds = least_s
        if not self.ours:
            seconds = min(max(least_s, 2 * self._avoid_s.get(url, 0.0)), _LONGEST_AVOID_S)
        self._avoid_s[url], self._avoided[url] = seconds, now + seconds

    def _reachable(self) -> list[Server]:
        now = time.monotonic()
        return [
            server
            for server in self._directory.servers
            if self._avoided.get(server.base_url, 0.0) <= now
        ]

    async def _follow(self) -> None:
        while True:
            try:
                self._directory = await self._servers.directory(self._directory)
            except Exception:  # Who knows them is being started again.
                await asyncio.sleep(_TRY_AGAIN_S)


def _weight(affinity: str, name: str) -> bytes:
    return hashlib.sha256(f"{name}\0{affinity}".encode("utf-8", "surrogatepass")).digest()
