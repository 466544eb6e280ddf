"""Files of unsent requests, to submit as a batch or to estimate their cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from neuron_atlas.tasks.artifacts.location import is_local, read_range
from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.tokens import TokenBound

PENDING = "pending"


@dataclass(frozen=True)
class RequestFile:
    """Where requests are written, one per line; opening it overwrites it.

    with_bodies: also write the bodies to send. price_share: share of the list price that is
    charged.
    """

    path: Path
    with_bodies: bool = True
    price_share: float = 1.0


@dataclass(frozen=True)
class FiledRequest:
    """A line of a request file, and where its body is."""

    request_hash: str
    tokens_in: int
    tokens_out: int
    usd: float
    path: Path
    offset: int
    length: int

    def body(self) -> dict[str, Any]:
        """Read the body to send."""
        return json.loads(read_range(self.path, self.offset, self.length))["body"]


class RequestWriter:
    """Writes a request file, each request once."""

    def __init__(self, file: RequestFile) -> None:
        if is_local(file.path):
            file.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._stream: BinaryIO = file.path.open("wb")
        self._written: set[str] = set()

    def add(
        self, request_hash: str, body: Mapping[str, Any], bound: TokenBound, max_usd: float
    ) -> Answer:
        """Write a request; return an answer with the status pending."""
        if request_hash not in self._written:
            self._written.add(request_hash)
            line: dict[str, Any] = {
                "request_hash": request_hash,
                "tokens_in": bound.tokens_in,
                "tokens_out": bound.tokens_out,
                "usd": max_usd * self._file.price_share,
            }
            if self._file.with_bodies:
                line["body"] = body
            self._stream.write(json.dumps(line).encode() + b"\n")
        return Answer(PENDING)

    def close(self) -> None:
        """Close the file, or remove it if it is empty."""
        self._stream.close()
        if not self._written:
            self._file.path.unlink()


def read_request_files(paths: Iterable[Path]) -> Iterator[FiledRequest]:
    """Yield the requests of some files without their bodies; skip duplicates."""
    seen: set[str] = set()
    for path in paths:
        with path.open("rb") as stream:
            offset = 0
            for line in stream:
                fields = json.loads(line)
                if fields["request_hash"] not in seen:
                    seen.add(fields["request_hash"])
                    yield FiledRequest(
                        fields["request_hash"],
                        fields["tokens_in"],
                        fields["tokens_out"],
                        fields["usd"],
                        path,
                        offset,
                        len(line),
                    )
                offset += len(line)
