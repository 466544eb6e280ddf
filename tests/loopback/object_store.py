"""A real S3 server on loopback: Moto's, a process of its own, spoken to over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import s3fs

BUCKET = "neurons"
_STARTS_WITHIN_S = 60
_NO_AUTHENTICATION = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "something"}


@contextmanager
def object_store(log: Path, **environment: str) -> Iterator[Mapping[str, str]]:
    """A server with one empty bucket; the environment in which it is found.

    environment: of the server, which Moto reads its settings from.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | environment,
            stdout=stream,
            stderr=stream,
        )
    try:
        _wait(port, server, log)
        found = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1,localhost",
            **_NO_AUTHENTICATION,
        }
        client(found).mkdir(BUCKET)
        yield found
    finally:
        server.kill()
        server.wait()


def client(environment: Mapping[str, str]) -> s3fs.S3FileSystem:
    """Another client than the program's, which remembers nothing."""
    return s3fs.S3FileSystem(
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "the object store never listened"
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
