"""One run at a time below a prefix of an object store, which has no locks of its own.

The lock is an object that says who holds it, and that its holder writes anew every few seconds. It
is made by a write that the store refuses where the object is there already. Times are the store's,
so machines' clocks need not agree.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import psutil
from upath import UPath

from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall

_LOCK = ".lock"
_BEAT_S = 10.0
_LEASE_S = 45.0
"""Without a sign of life for so long, a holder is taken for dead."""
_LOOK_EVERY_S = 1.0
_ME = secrets.token_hex(8)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the prefix while open.

    Raises WrongCall where another run holds it, or where it cannot be written. A run that was
    killed on this machine holds nothing; of one on another machine that is known after a while.
    """
    lock = cast(UPath, out / _LOCK)
    try:
        _take(lock, out)
    except WrongCall:
        raise
    except Exception as error:  # Of the store, its credentials, or the way to it.
        raise WrongCall(f"out: cannot write below {str(out)!r}: {_reason(error)}") from error
    keeper = _Keeper(lock)
    try:
        yield
    except KeyboardInterrupt:
        if keeper.lost:
            raise RunFailed(
                f"out: this run was not heard of for long, and another began to write to "
                f"{str(out)!r}; what was finished is kept"
            ) from None
        raise
    finally:
        keeper.close()


def _take(lock: UPath, out: Path) -> None:
    begun = time.monotonic()
    heard = None
    while not _make(lock):
        try:
            holder, beat = _read(lock)
        except FileNotFoundError:
            continue  # It has just been let go.
        if _is_dead(holder):
            break
        if heard is not None and beat != heard:
            raise _in_use(holder, out)
        if heard is None:
            heard = beat
            if _age(lock, beat) < _LEASE_S:
                say(f"out        looking whether {_named(holder)} still writes to it")
        if _age(lock, beat) >= _LEASE_S or time.monotonic() - begun >= _LEASE_S:
            break
        time.sleep(_LOOK_EVERY_S)
    else:
        return
    lock.fs.pipe_file(lock.path, _content())
    time.sleep(_LOOK_EVERY_S)  # Of two that take over what a third left, the later one has it.
    holder, _ = _read(lock)
    if holder["run"] != _ME:
        raise _in_use(holder, out)


def _make(lock: UPath) -> bool:
    """Whether the object was made, and was not there before."""
    try:
        lock.fs.pipe_file(lock.path, _content(), mode="create")
    except FileExistsError:
        return False
    return True


def _read(lock: UPath) -> tuple[dict[str, Any], datetime]:
    """Who holds it, and when it was last heard of."""
    content = json.loads(lock.fs.cat_file(lock.path))
    return content, lock.fs.modified(lock.path)


def _age(lock: UPath, beat: datetime) -> float:
    """Seconds since then by the store's clock, which the time of an object written now tells."""
    clock = lock.parent / f".clock-{_ME}"
    clock.fs.pipe_file(clock.path, b"")
    now = clock.fs.modified(clock.path)
    clock.fs.rm_file(clock.path)
    return (now - beat).total_seconds()


def _content() -> bytes:
    process = psutil.Process()
    holder = {
        "run": _ME,
        "host": socket.gethostname(),
        "process": process.pid,
        "begun": process.create_time(),
        "beat": time.time(),
    }
    return json.dumps(holder).encode()


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether it ran on this machine, and no longer does."""
    if holder["host"] != socket.gethostname():
        return False
    try:
        # A process of the same number that began at another time is another.
        return abs(psutil.Process(holder["process"]).create_time() - holder["begun"]) > 1
    except psutil.NoSuchProcess:
        return True


def _in_use(holder: dict[str, Any], out: Path) -> WrongCall:
    return WrongCall(
        f"out: another run ({_named(holder)}) is writing to {str(out)!r}; wait for it or name "
        "another prefix"
    )


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder['process']} on {holder['host']}"


def _reason(error: Exception) -> str:
    """What a store's client says, in one line."""
    told = " ".join(str(error).split()) or repr(error)
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket ({told})"
    where = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    at = f" at {where}" if where else ""
    return f"{told}; asked{at} with the credentials of the environment (AWS_ACCESS_KEY_ID ...)"


class _Keeper:
    """Says every few seconds that the run lives, and whether its lock is still its own."""

    def __init__(self, lock: UPath) -> None:
        self.lost = False
        self._lock = lock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go."""
        self._ended.set()
        self._thread.join()
        with suppress(Exception):
            if not self.lost and _read(self._lock)[0]["run"] == _ME:
                self._lock.fs.rm_file(self._lock.path)

    def _keep(self) -> None:
        while not self._ended.wait(_BEAT_S):
            with suppress(Exception):  # A store that cannot be reached now may be later.
                if self._is_mine():
                    self._lock.fs.pipe_file(self._lock.path, _content())
                else:
                    self.lost = True
                    _interrupt()
                    return

    def _is_mine(self) -> bool:
        try:
            return _read(self._lock)[0]["run"] == _ME
        except FileNotFoundError:
            return True  # Removed by hand: it is made again.


def _interrupt() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)
