"""The whole program with a chat model as its explainer, against a provider on loopback."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopback.fixture import ROOT, Loopback
from tests.workflows.killing import (
    STEADY,
    chat_overrides,
    check_what_was_sent,
    explanations,
    run_killed,
    without_answers,
)
from tests.workflows.runs import command, run_here, runs_in

_NEURONS = 40
_KILLS = 3
_SEED = 7


def _command(provider: Loopback, out: Path, *settings: str) -> list[str]:
    return command(*chat_overrides(provider, out, _NEURONS, *settings))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(
    ray_of_two_cores: None,
    loopback_process: Loopback,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        run_here(*chat_overrides(loopback_process, out, _NEURONS))
        yield out


def test_every_chosen_neuron_is_explained_in_words_with_tokens_and_a_price(
    undisturbed: Path,
) -> None:
    rows = explanations(undisturbed).to_pylist()
    assert len(rows) == _NEURONS
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert row["text"]
        assert row["model"] == "gpt-4o"
        assert row["tokens_in"] > 0
        assert row["cost"] > 0
        assert 0 < len(row["exemplar_ids"]) <= 8 + 3  # exemplars and contrasts


def test_the_key_is_in_nothing_that_a_run_writes(undisturbed: Path, provider: Loopback) -> None:
    written = [path for path in undisturbed.rglob("*") if path.is_file()]
    assert any(path.name == "journal.sqlite" for path in written)
    assert any(path.name == "mlflow.db" for path in written)
    for path in written:
        assert provider.key.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_run_killed_while_explaining_goes_on_without_asking_again(
    undisturbed: Path, provider: Loopback, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    without_answers(undisturbed, out)
    provider.misbehave("slow", times=-1, seconds=0.3)
    overrides = chat_overrides(provider, out, _NEURONS)

    disturbed = run_killed(provider, overrides, tmp_path / "log", _NEURONS, _KILLS, _SEED)

    assert disturbed.killed == {"driver": 2, "worker": 1}
    assert explanations(out).select(STEADY).equals(explanations(undisturbed).select(STEADY))
    check_what_was_sent(provider, out)


@pytest.mark.slow
def test_a_dry_run_says_what_it_would_take_without_a_key_or_a_call(
    undisturbed: Path, provider: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "dry"
    without_answers(undisturbed, out)
    monkeypatch.delenv("OPENAI_API_KEY")
    limits = "explain.client.limits.requests_per_minute=60"
    finished = _run(_command(provider, out, "explain.dry_run=true", limits))
    assert finished.returncode == 0, finished.stderr
    told = dict(line.split(maxsplit=1) for line in finished.stderr.splitlines() if " " in line)
    assert told["dry"].endswith(f"{_NEURONS} neurons")
    assert told["requests"].startswith(f"{_NEURONS} to gpt-4o, and 0 more")
    dollars = float(told["dollars"].split()[0])
    assert dollars >= _explanations_cost(undisturbed)
    assert "prices of 2026-04-05" in told["dollars"]
    assert told["hours"].startswith("0.01 at the limits")
    assert provider.requests() == []
    assert not (out / "artifacts" / "explain").exists()
    before, after = ((one / "manifest.json").read_bytes() for one in (undisturbed, out))
    assert after == before


@pytest.mark.slow
def test_a_batch_run_says_the_same_for_half_the_price(
    undisturbed: Path, provider: Loopback, tmp_path: Path
) -> None:
    out = tmp_path / "batch"
    without_answers(undisturbed, out)
    polled = "explain.client.batch.poll_s=0.2"
    finished = _run(_command(provider, out, "explain.mode=batch", polled))
    assert finished.returncode == 0, finished.stderr
    assert explanations(out).select(STEADY).equals(explanations(undisturbed).select(STEADY))
    assert all(line["batch"] for line in provider.requests())
    assert _explanations_cost(out) == pytest.approx(_explanations_cost(undisturbed) / 2)


@pytest.mark.slow
def test_the_budget_ends_the_run_and_a_larger_one_lets_it_go_on(
    undisturbed: Path, provider: Loopback, tmp_path: Path
) -> None:
    out = tmp_path / "budget"
    without_answers(undisturbed, out)
    price = _explanations_cost(undisturbed)
    stopped = _run(_command(provider, out, f"explain.budget_usd={price / 2:.4f}"))
    # It is a normal end: the page shows what was paid for, and the last lines say what was not.
    assert stopped.returncode == 0, stopped.stderr
    assert "budget     explain.budget_usd ($" in stopped.stderr
    (page,) = out.glob("artifacts/report/*/index.html")
    assert "budget" in page.read_text(encoding="utf-8")
    _, runs = runs_in(out / "mlflow.db")
    (ended,) = [run for run in runs if "ended_by_budget" in run.data.tags]
    assert ended.info.status == "FINISHED"
    assert "explain.budget_usd" in ended.data.tags["ended_by_budget"]
    assert 0 < _journaled_usd(out) <= price / 2
    first = len(provider.requests())
    finished = _run(_command(provider, out, "explain.budget_usd=100"))
    assert finished.returncode == 0, finished.stderr
    assert "of $100.00" in finished.stderr
    assert len(provider.requests()) == _NEURONS > first
    assert set(explanations(out)["status"].to_pylist()) == {"ok"}


def test_without_any_money_there_is_a_page_all_the_same(
    undisturbed: Path, provider: Loopback, tmp_path: Path
) -> None:
    out = tmp_path / "nothing"
    without_answers(undisturbed, out)
    run_here(*chat_overrides(provider, out, _NEURONS, "explain.budget_usd=0"))
    assert set(explanations(out)["status"].to_pylist()) == {"budget"}
    assert list(out.glob("artifacts/report/*/index.html"))
    assert provider.requests() == []


@pytest.mark.slow
def test_failures_that_may_pass_are_tried_again_by_the_same_call(
    undisturbed: Path, provider: Loopback, tmp_path: Path
) -> None:
    out = tmp_path / "failures"
    without_answers(undisturbed, out)
    provider.misbehave("500", times=2)
    quick = ("explain.client.max_attempts=1", "explain.max_failed_share=0.2")
    first = _run(_command(provider, out, *quick))
    assert first.returncode == 0, first.stderr
    assert explanations(out)["status"].to_pylist().count("failed") == 2
    second = _run(_command(provider, out, *quick))
    assert "explain    2 failures may have passed; trying them again" in second.stderr
    assert explanations(out).select(STEADY).equals(explanations(undisturbed).select(STEADY))
    assert len(provider.requests()) == _NEURONS + 2
    third = _run(_command(provider, out, *quick))
    assert "seconds    none: everything was already done" in third.stderr


def test_the_run_in_mlflow_tells_what_it_cost_and_holds_the_explanations(undisturbed: Path) -> None:
    client, (run,) = runs_in(undisturbed / "mlflow.db")
    metrics = run.data.metrics
    assert metrics["explain/usd"] == pytest.approx(_explanations_cost(undisturbed))
    assert metrics["cost/usd"] == metrics["explain/usd"]
    calls = Path(client.download_artifacts(run.info.run_id, "tables/calls.json"))
    rows = dict(json.loads(calls.read_text(encoding="utf-8"))["data"])
    assert metrics["explain/requests"] == rows["explain/calls/ok"] == _NEURONS
    assert 0 < metrics["explain/latency_p50_s"] <= rows["explain/latency_p99_s"]
    note = run.data.tags["mlflow.note.content"]
    assert f"**Cost**: ${metrics['cost/usd']:,.2f} for {_NEURONS:,} requests" in note
    path = client.download_artifacts(run.info.run_id, "explanations.json")
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    assert len(table["data"]) == _NEURONS
    assert "text" in table["columns"]


def _explanations_cost(out: Path) -> float:
    return sum(explanations(out)["cost"].to_pylist())


def _journaled_usd(out: Path) -> float:
    with sqlite3.connect(out / "journal.sqlite") as database:
        return database.execute("SELECT sum(usd) FROM calls").fetchone()[0]


def test_a_missing_key_stops_the_run_before_the_subject_describes_anything(
    ray_of_two_cores: None,
    ended: Callable[..., tuple[object, str]],
    provider: Loopback,
    tmp_path: Path,
    shared_mlflow: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    status, said = ended(*chat_overrides(provider, tmp_path, _NEURONS))
    assert status == 2
    assert "OPENAI_API_KEY" in said.splitlines()[-1]
    assert not list(tmp_path.glob("artifacts/describe/*/*.parquet"))


@pytest.mark.slow
def test_a_model_that_the_provider_does_not_know_stops_the_run_with_the_setting_to_change(
    undisturbed: Path, provider: Loopback
) -> None:
    price = '+explain.prices.gpt-0={input: 1, output: 2, date: "2026-04-05"}'
    unknown = _command(provider, undisturbed, "explain.client.model=gpt-0", price)
    finished = _run(unknown)
    assert finished.returncode == 2
    assert "explain.client.model" in finished.stderr.splitlines()[-1]
