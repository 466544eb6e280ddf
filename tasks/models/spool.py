"""Requests that are written down instead of sent: for a batch, or to know what they would cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from neuron_atlas.tasks.artifacts.location import is_local, read_stretch
from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.tokens import Worst

PENDING = "pending"


@dataclass(frozen=True)
class Spool:
    """A file of requests, a line each, that is written anew by whoever opens it.

    keep_bodies: whether what would be sent is kept too. share: of the price that is charged.
    """

    path: Path
    keep_bodies: bool = True
    share: float = 1.0


@dataclass(frozen=True)
class Spooled:
    """A line of a spool, and where its body lies."""

    request_hash: str
    tokens_in: int
    tokens_out: int
    usd: float
    path: Path
    offset: int
    length: int

    def body(self) -> dict[str, Any]:
        """What is to be sent."""
        return json.loads(read_stretch(self.path, self.offset, self.length))["body"]


class SpoolWriter:
    """Writes a spool; each request once."""

    def __init__(self, spool: Spool) -> None:
        if is_local(spool.path):
            spool.path.parent.mkdir(parents=True, exist_ok=True)
        self._spool = spool
        self._stream: BinaryIO = spool.path.open("wb")
        self._seen: set[str] = set()

    def add(
        self, request_hash: str, body: Mapping[str, Any], worst: Worst, worst_usd: float
    ) -> Answer:
        """Write a request down; the answer is that it is pending."""
        if request_hash not in self._seen:
            self._seen.add(request_hash)
            line: dict[str, Any] = {
                "request_hash": request_hash,
                "tokens_in": worst.tokens_in,
                "tokens_out": worst.tokens_out,
                "usd": worst_usd * self._spool.share,
            }
            if self._spool.keep_bodies:
                line["body"] = body
            self._stream.write(json.dumps(line).encode() + b"\n")
        return Answer(PENDING)

    def close(self) -> None:
        """The file is whole after this; an empty one is removed."""
        self._stream.close()
        if not self._seen:
            self._spool.path.unlink()


def read_spools(paths: Iterable[Path]) -> Iterator[Spooled]:
    """The requests of some spools, each once, without their bodies."""
    seen: set[str] = set()
    for path in paths:
        with path.open("rb") as stream:
            offset = 0
            for line in stream:
                told = json.loads(line)
                if told["request_hash"] not in seen:
                    seen.add(told["request_hash"])
                    yield Spooled(
                        told["request_hash"],
                        told["tokens_in"],
                        told["tokens_out"],
                        told["usd"],
                        path,
                        offset,
                        len(line),
                    )
                offset += len(line)
