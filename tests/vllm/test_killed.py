"""Runs of the whole program on a real vLLM that it starts, killed in mid-run."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.vllm.running import MODEL, api_server, left_of, processes, served, sessions
from tests.vllm.servable import make_servable
from tests.workflows.programs import Program, program

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

_START_S = 600.0
_NO_FAULT = {"ok", "no_control"}
"""Two neurons may be of two types, and then neither is the other's control."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy for one test, whose servers are known by it."""
    return make_servable(tmp_path / MODEL)


def run(model: Path, out: Path, *more: str) -> list[str]:
    """A run of the whole program with two simulated neurons."""
    return [
        *("data.count=40", "capture.layers=[1]", "capture.top_n=16", "describe=given"),
        *("explain=dissect", "explain.neurons.count=2", "explain.neurons_per_task=1"),
        *("score.resamples=100", "cluster.cpus=2", f"out={out}"),
        *served(model),
        *more,
    ]


def answered(out: Path) -> int:
    journal = out / "journal.sqlite"
    if not journal.is_file():
        return 0
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
        try:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def wait_for_answers(running: Program, out: Path, count: int) -> None:
    deadline = time.monotonic() + _START_S + 300
    while answered(out) < count:
        assert running.process.poll() is None, running.said()
        assert time.monotonic() < deadline, running.said()
        time.sleep(0.1)


def simulations(out: Path) -> pa.Table:
    files = sorted(out.glob("artifacts/simulate/*/simulations-*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files)


def test_a_run_whose_server_is_killed_ends_on_the_next_one_and_leaves_none(
    model: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "said"
    with program(log, *run(model, out)) as running:
        wait_for_answers(running, out, 10)
        first = api_server(model)
        assert first is not None
        seen = sessions(model)
        engines = len(left_of(seen))
        os.kill(first.pid, signal.SIGKILL)
        while running.process.poll() is None:
            seen |= sessions(model)
            time.sleep(0.5)
        status = running.end()
    said = log.read_text(encoding="utf-8")
    print(said)
    assert status == 0, said
    assert "server 0 ended with status 137: started again (1; 5 an hour at most)" in said
    rows = simulations(out)
    assert {"ok"} <= set(rows["status"].to_pylist()) <= _NO_FAULT
    rated = rows.filter(pc.equal(rows["status"], "ok"))
    assert set(rated["estimator"].to_pylist()) <= {"expected 0-9", "integers 0-9"}
    with sqlite3.connect(out / "journal.sqlite") as database:
        asked = database.execute("SELECT count(DISTINCT request_hash) FROM calls").fetchone()[0]
        models = {row[0] for row in database.execute("SELECT DISTINCT model FROM answers")}
    assert answered(out) == asked
    assert models == {MODEL}
    assert engines > 2  # The watchdog, the one that answers, and those that compute.
    assert len(seen) == 2
    assert left_of(seen) == []


def test_a_driver_that_is_killed_leaves_no_server_and_the_same_call_goes_on(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with program(tmp_path / "said", *run(model, out, "simulate.estimator=integers")) as running:
        wait_for_answers(running, out, 5)
        seen = sessions(model)
        assert len(seen) == 1
        assert len(left_of(seen)) > 2
        running.kill()
    deadline = time.monotonic() + 30
    while left := left_of(seen):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    kept_answers = answered(out)
    with program(tmp_path / "again", *run(model, out, "simulate.estimator=integers")) as running:
        status = running.end()
        assert status == 0, running.said()
    assert {"ok"} <= set(simulations(out)["status"].to_pylist()) <= _NO_FAULT
    assert answered(out) > kept_answers >= 5
    assert processes(model) == []
