"""Lock a prefix of an object store, which has no locks of its own: one run at a time.

The lock is an object that the store creates only if it does not exist. It names its holder. A run
deletes it when it ends; `neuron-atlas-unlock` deletes the lock of a killed run.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from upath import UPath

from neuron_atlas.tasks.artifacts.location import is_uri, parse_location
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.errors import ConfigError

_LOCK = ".lock"


@contextmanager
def object_lock(out: Path) -> Iterator[None]:
    """Lock the prefix while open.

    Raises ConfigError if another run holds the lock, or if the prefix is not writable.
    """
    lock, content = cast(UPath, out / _LOCK), _content()
    try:
        _take(lock, content, out)
    except KeyboardInterrupt:
        _release(lock, content)
        raise
    try:
        yield
    finally:
        _release(lock, content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `neuron-atlas-unlock`. Exit status 0, even without a lock; 2 for a usage error."""
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-unlock",
        description="Remove the lock that a killed run left on an object store. Make sure that its "
        "holder no longer runs: two runs on one prefix delete each other's files.",
    )
    parser.add_argument("out", help="the out= of the run, as s3://BUCKET/PREFIX")
    out = parser.parse_args(arguments).out
    if not is_uri(out):
        parser.error(f"{out}: the lock of a local folder ends with its run")
    try:
        lock = cast(UPath, parse_location(out) / _LOCK)
        holder = _holder(lock.fs.cat_file(lock.path))
        lock.fs.rm_file(lock.path)
    except FileNotFoundError:
        print_line(f"neuron-atlas-unlock: {out} is not locked")
    except ValueError as error:
        parser.error(str(error))
    except Exception as error:
        parser.error(f"{out}: {_reason(error)}")
    else:
        print_line(f"neuron-atlas-unlock: removed the lock of {holder}")


def _take(lock: UPath, content: bytes, out: Path) -> None:
    try:
        while not _create(lock, content):
            with suppress(FileNotFoundError):  # Released since: try again.
                found = lock.fs.cat_file(lock.path)
                if found == content:
                    return  # The store repeated a request whose answer was lost.
                raise ConfigError(
                    f"out: {str(out)!r} is locked by {_holder(found)}. Wait for that run. If it no "
                    f"longer runs, remove its lock: neuron-atlas-unlock {shlex.quote(str(out))}"
                )
    except ConfigError:
        raise
    except Exception as error:  # The store, its credentials, or the network.
        raise ConfigError(f"out: cannot write below {str(out)!r}: {_reason(error)}") from error


def _create(lock: UPath, content: bytes) -> bool:
    """Create the object; False if it exists."""
    try:
        lock.fs.pipe_file(lock.path, content, mode="create")
    except FileExistsError:
        return False
    return True


def _release(lock: UPath, content: bytes) -> None:
    with suppress(Exception):  # If the store cannot be reached, the lock stays.
        if lock.fs.cat_file(lock.path) == content:
            lock.fs.rm_file(lock.path)


def _content() -> bytes:
    holder = {
        "run": secrets.token_hex(8),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    return json.dumps(holder).encode()


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError):
        return "an unknown run"


def _reason(error: Exception) -> str:
    """Return the error message of a store's client, on one line."""
    message = " ".join(str(error).split()) or repr(error)
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket ({message})"
    where = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    at = f" at {where}" if where else ""
    return f"{message}; asked{at} with the credentials of the environment (AWS_ACCESS_KEY_ID ...)"


if __name__ == "__main__":
    main()
