"""The provider on loopback as a fixture: a real process, one a test module."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.provider import KEY
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


@dataclass
class Loopback:
    """A running provider, as a test sees it."""

    base_url: str
    log: Path
    key: str = KEY
    _read: int = field(default=0, repr=False)

    def misbehave(self, kind: str, **how: Any) -> None:
        """Do this to the next request, or to the next `times` that contain `match`."""
        self._control("POST", "faults", [{"kind": kind, **how}])

    def limit(self, requests: int | None, tokens: int | None, window_s: float = 60.0) -> None:
        """Enforce these limits over a sliding window from now on."""
        limits = {"requests": requests, "tokens": tokens, "window_s": window_s}
        self._control("POST", "limits", limits)

    def batches(self, **how: Any) -> None:
        """From now on batches go like this (see tests/loopback/batches.py)."""
        self._control("POST", "batches", how)

    def behave(self) -> None:
        """No faults, no limits, quick batches."""
        self._control("DELETE", "faults", [])

    @property
    def root(self) -> str:
        """Its address without the path of the protocol."""
        return self.base_url.removesuffix("/v1")

    def requests(self) -> list[dict[str, Any]]:
        """What was sent since `forget`, in the order in which it was dealt with."""
        return self._lines()[self._read :]

    def forget(self) -> None:
        self._read = len(self._lines())

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def _control(self, method: str, what: str, told: Any) -> None:
        url = f"{self.root}/control/{what}"
        request = urllib.request.Request(url, json.dumps(told).encode(), method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=PATIENCE_S).close()


@pytest.fixture(scope="module")
def loopback_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    log = tmp_path_factory.mktemp("loopback") / "requests.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.loopback.provider", "--log", str(log), "--with-parent"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert base_url, "the provider on loopback did not start"
        yield Loopback(base_url, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def provider(loopback_process: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A provider that behaves, has seen nothing yet, and whose key is in OPENAI_API_KEY."""
    monkeypatch.setenv("OPENAI_API_KEY", loopback_process.key)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    loopback_process.forget()
    yield loopback_process
    loopback_process.behave()
