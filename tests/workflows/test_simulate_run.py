"""The whole program with a chat model as its simulator, against a provider on loopback."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loopback.fixture import ROOT, Loopback
from tests.workflows.killing import check_what_was_sent, run_killed, without_answers
from tests.workflows.programs import program
from tests.workflows.runs import command, runs_in

pytestmark = pytest.mark.slow

_NEURONS = 6
_SEED = 3
_AFTER = ("simulate", "score", "report")


def _overrides(provider: Loopback, out: Path, *settings: str) -> list[str]:
    return [
        "data.count=60",
        "capture.layers=[1]",
        "capture.top_n=16",
        "describe=given",
        "explain=dissect",
        f"explain.neurons.count={_NEURONS}",
        "explain.neurons_per_task=2",
        "simulate=chat",
        "simulate.image_size=200",
        f"simulate.client.base_url={provider.base_url}",
        "simulate.client.provider=loopback",
        "simulate.client.concurrency=4",
        "simulate.client.limits.requests_per_minute=null",
        "simulate.client.limits.tokens_per_minute=null",
        "score.resamples=100",
        "cluster.cpus=2",
        "cluster.actors=1",
        f"out={out}",
        *settings,
    ]


def _run(provider: Loopback, out: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    called = command(*_overrides(provider, out, *settings))
    return subprocess.run(called, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(
    loopback_process: Loopback, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("RAY_ADDRESS", raising=False)
        finished = _run(loopback_process, out)
        assert finished.returncode == 0, finished.stderr
        assert "simulate   estimator: expected" in finished.stderr
        yield out


@pytest.fixture
def earlier(undisturbed: Path, tmp_path: Path) -> Path:
    """The same run as it was before anything was simulated."""
    out = tmp_path / "earlier"
    without_answers(undisturbed, out, _AFTER)
    return out


def _simulations(out: Path) -> pa.Table:
    parts = sorted(out.glob("artifacts/simulate/*/simulations-*.parquet"))
    table = pa.concat_tables(pq.read_table(part) for part in parts)
    keys = ("layer", "neuron", "explanation", "sample_id", "purpose")
    return table.sort_by([(key, "ascending") for key in keys])


def _calls(out: Path) -> list[tuple[str, str | None, float]]:
    with sqlite3.connect(out / "journal.sqlite") as database:
        return database.execute("SELECT purpose, outcome, usd FROM calls").fetchall()


def test_every_row_says_how_it_was_estimated(undisturbed: Path) -> None:
    rows = _simulations(undisturbed)
    asked = rows.filter(pa.compute.equal(rows["status"], "ok"))
    assert len(asked) > 100
    assert set(rows["status"].to_pylist()) == {"ok"}
    assert set(asked["estimator"].to_pylist()) == {"expected"}
    assert set(asked["simulator"].to_pylist()) == {"chat"}
    assert {"own", "other", "empty"} == set(asked["explanation"].to_pylist())
    assert {purpose for purpose, *_ in _calls(undisturbed)} == {"simulate"}


@pytest.mark.parametrize("simulate", ["chat", "prompt_logprobs"])
def test_a_server_that_is_not_there_ends_the_run_in_words(
    earlier: Path, provider: Loopback, simulate: str
) -> None:
    known = ("simulate=", "simulate.image_size=", "simulate.client.base_url=")
    overrides = [
        *(one for one in _overrides(provider, earlier) if not one.startswith(known)),
        *(f"simulate={simulate}", "simulate.servers=null", "simulate.client.model=gpt-4o"),
        *("simulate.client.base_url=http://127.0.0.1:1/v1", "simulate.client.max_attempts=1"),
        "simulate.client.api_key_env=OPENAI_API_KEY",
    ]
    finished = subprocess.run(
        command(*overrides), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    assert "estimator: not known yet: the server did not answer" in finished.stderr
    assert "connection: ConnectError" in finished.stderr


def test_what_it_costs_is_in_mlflow_while_it_runs_and_after(undisturbed: Path) -> None:
    _, (run,) = runs_in(undisturbed / "mlflow.db")
    metrics = run.data.metrics
    paid = sum(usd for *_, usd in _calls(undisturbed))
    assert metrics["simulate/usd"] == pytest.approx(paid)
    assert metrics["simulate/requests"] == len(_calls(undisturbed)) > 100
    assert metrics["simulate/latency_p50_s"] > 0


def test_a_second_call_does_nothing_and_asks_nobody(undisturbed: Path, provider: Loopback) -> None:
    again = _run(provider, undisturbed)
    assert again.returncode == 0, again.stderr
    assert "seconds    none: everything was already done" in again.stderr
    assert provider.requests() == []


def test_a_run_killed_while_simulating_goes_on_without_asking_again(
    undisturbed: Path, earlier: Path, provider: Loopback, tmp_path: Path
) -> None:
    provider.misbehave("slow", times=-1, seconds=0.1)
    overrides = _overrides(provider, earlier)
    requests = len(_calls(undisturbed))
    disturbed = run_killed(
        provider, overrides, tmp_path / "log", requests, 3, _SEED, work="ray::simulate:"
    )
    assert disturbed.killed == {"driver": 2, "worker": 1}
    assert _simulations(earlier).equals(_simulations(undisturbed))
    check_what_was_sent(provider, earlier)


def test_a_run_that_is_told_to_stop_keeps_the_answers_that_are_under_way(
    earlier: Path, provider: Loopback, tmp_path: Path
) -> None:
    provider.misbehave("slow", times=-1, seconds=0.5)
    with program(tmp_path / "log", *_overrides(provider, earlier)) as running:
        running.run_until(lambda: len(provider.requests()) > 10)
        assert running.terminate() == 128 + signal.SIGINT
    assert all(outcome == "ok" for _, outcome, _ in _calls(earlier))
    assert sum(line["answered"] for line in provider.requests()) == len(_calls(earlier))


def test_a_dry_run_says_what_it_would_take_without_a_key_or_a_call(
    undisturbed: Path, earlier: Path, provider: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    limits = "simulate.client.limits.requests_per_minute=600"
    finished = _run(provider, earlier, "simulate.dry_run=true", limits)
    assert finished.returncode == 0, finished.stderr
    told = dict(line.split(maxsplit=1) for line in finished.stderr.splitlines() if " " in line)
    # All but the one by which it is found out what the server can do.
    count = len(_calls(undisturbed)) - 1
    assert told["requests"].startswith(f"{count:,} to gpt-4o, and 0 more")
    assert float(told["dollars"].split()[0]) >= sum(usd for *_, usd in _calls(undisturbed))
    assert told["hours"].endswith("at the limits in simulate.client.limits")
    assert provider.requests() == []
    assert not (earlier / "artifacts" / "simulate").exists()
    before, after = ((one / "manifest.json").read_bytes() for one in (undisturbed, earlier))
    assert after == before


def test_a_batch_run_predicts_the_same_for_half_the_price(
    undisturbed: Path, earlier: Path, provider: Loopback
) -> None:
    finished = _run(provider, earlier, "simulate.mode=batch", "simulate.client.batch.poll_s=0.2")
    assert finished.returncode == 0, finished.stderr
    assert _simulations(earlier).equals(_simulations(undisturbed))
    live = [line for line in provider.requests() if "batch" not in line]
    assert len(live) == 1
    paid, before = (sum(usd for *_, usd in _calls(out)) for out in (earlier, undisturbed))
    assert paid == pytest.approx(before / 2, rel=0.01)


def test_the_budget_ends_the_run_and_a_larger_one_lets_it_go_on(
    undisturbed: Path, earlier: Path, provider: Loopback
) -> None:
    price = sum(usd for *_, usd in _calls(undisturbed))
    stopped = _run(provider, earlier, f"simulate.budget_usd={price / 2:.5f}")
    assert stopped.returncode == 0, stopped.stderr
    assert "budget     simulate.budget_usd ($" in stopped.stderr
    assert list(earlier.glob("artifacts/report/*/index.html"))
    assert 0 < sum(usd for *_, usd in _calls(earlier)) <= price / 2
    finished = _run(provider, earlier, "simulate.budget_usd=100")
    assert finished.returncode == 0, finished.stderr
    assert _simulations(earlier).equals(_simulations(undisturbed))
    assert len(provider.requests()) == len(_calls(undisturbed))


def test_failures_that_may_pass_are_asked_again_and_scored_anew(
    undisturbed: Path, earlier: Path, provider: Loopback
) -> None:
    provider.misbehave("500", times=2, match="predict")
    once = ("simulate.client.max_attempts=1", "simulate.max_failed_share=0.5")
    first = _run(provider, earlier, *once)
    assert first.returncode == 0, first.stderr
    failed = _simulations(earlier)["status"].to_pylist().count("failed")
    assert failed >= 2
    second = _run(provider, earlier, *once)
    assert f"simulate   {failed} failures may have passed; trying them again" in second.stderr
    assert "score      already done" not in second.stderr
    assert _simulations(earlier).equals(_simulations(undisturbed))


def test_a_missing_key_stops_the_run_before_the_subject_describes_anything(
    provider: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    finished = _run(provider, tmp_path)
    assert finished.returncode == 2
    said = finished.stderr.splitlines()[-1]
    assert "OPENAI_API_KEY" in said
    assert "simulate.client.api_key_env" in said
    assert not list(tmp_path.glob("artifacts/describe/*/*.parquet"))
