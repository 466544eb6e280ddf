"""A real S3 server on loopback: Moto's, a process of its own, spoken to over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import s3fs

BUCKET = "neurons"
_STARTS_WITHIN_S = 60
_ACTIONS_TO_MAKE_A_BUCKET = 3


@dataclass(frozen=True)
class ObjectStore:
    """A running server with one bucket; environment: in which a program finds it."""

    environment: Mapping[str, str]
    log: Path

    def names(self) -> list[str]:
        """All objects, as another client than the program's sees them."""
        return [name.removeprefix(f"{BUCKET}/") for name in self.client.find(BUCKET)]

    @cached_property
    def client(self) -> s3fs.S3FileSystem:
        """A client that remembers nothing."""
        return s3fs.S3FileSystem(
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            key=self.environment["AWS_ACCESS_KEY_ID"],
            secret=self.environment["AWS_SECRET_ACCESS_KEY"],
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("object-store") / "log") as store:
        yield store


@pytest.fixture
def store(_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A server that this process finds; its bucket is empty."""
    for name, value in _store.environment.items():
        monkeypatch.setenv(name, value)
    yield _store
    left = [f"{BUCKET}/{name}" for name in _store.names()]
    if left:
        _store.client.rm(left)


@contextmanager
def object_store(log: Path, *, asks_for_keys: bool = False) -> Iterator[ObjectStore]:
    """Start a server with an empty bucket; asks_for_keys: nobody's are right from then on."""
    settings = {"INITIAL_NO_AUTH_ACTION_COUNT": str(_ACTIONS_TO_MAKE_A_BUCKET)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | (settings if asks_for_keys else {}),
            stdout=stream,
            stderr=stream,
        )
    try:
        _wait(port, server, log)
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "someone-on-loopback",
            "AWS_SECRET_ACCESS_KEY": "something-on-loopback",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        store = ObjectStore(environment, log)
        store.client.mkdir(BUCKET)
        yield store
    finally:
        server.kill()
        server.wait()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "the object store never listened"
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
