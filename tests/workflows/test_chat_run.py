"""The whole program with a chat model as its explainer, against a provider on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loopback.fixture import ROOT, Loopback

_NEURONS = 40
_WORKERS = 2
_BEFORE_THE_KILL = 8


def _command(provider: Loopback, out: Path, *settings: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "workflows.atlas",
        "data.count=60",
        "capture.layers=[1]",
        "capture.top_n=16",
        "describe=given",
        "explain=gpt4o",
        f"explain.client.base_url={provider.base_url}",
        "explain.client.provider=loopback",
        "explain.client.concurrency=1",
        "explain.client.limits.requests_per_minute=null",
        "explain.client.limits.tokens_per_minute=null",
        f"explain.neurons.count={_NEURONS}",
        "explain.neurons_per_task=10",
        f"cluster.cpus={_WORKERS}",
        f"out={out}",
        *settings,
    ]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


def _explanations(out: Path) -> pa.Table:
    parts = sorted(out.glob("artifacts/explain/*/explanations-*.parquet"))
    table = pa.concat_tables(pq.read_table(part) for part in parts)
    return table.sort_by([("layer", "ascending"), ("neuron", "ascending")])


@pytest.fixture(scope="module")
def undisturbed(
    loopback_process: Loopback, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("RAY_ADDRESS", raising=False)
        finished = _run(_command(loopback_process, out))
        assert finished.returncode == 0, finished.stderr
        yield out


def test_every_chosen_neuron_is_explained_in_words_with_tokens_and_a_price(
    undisturbed: Path,
) -> None:
    rows = _explanations(undisturbed).to_pylist()
    assert len(rows) == _NEURONS
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert row["text"]
        assert row["model"] == "gpt-4o"
        assert row["tokens_in"] > 0
        assert row["cost"] > 0
        assert 0 < len(row["exemplar_ids"]) <= 8


def test_the_key_is_in_nothing_that_a_run_writes(undisturbed: Path, provider: Loopback) -> None:
    written = [path for path in undisturbed.rglob("*") if path.is_file()]
    assert any(path.name == "journal.sqlite" for path in written)
    assert any(path.name == "mlflow.db" for path in written)
    for path in written:
        assert provider.key.encode() not in path.read_bytes(), path


def test_a_run_killed_while_explaining_goes_on_without_asking_again(
    undisturbed: Path, provider: Loopback, tmp_path: Path
) -> None:
    provider.misbehave("slow", times=-1, seconds=0.3)
    command = _command(provider, tmp_path)
    driver = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for_requests(provider, _BEFORE_THE_KILL, driver)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    provider.behave()
    time.sleep(1)  # What was under way reaches the provider's log.
    before = len(provider.requests())
    assert before < _NEURONS, "the run was over before it could be killed"

    finished = _run(command)

    assert finished.returncode == 0, finished.stderr
    sent = Counter(request["digest"] for request in provider.requests())
    assert len(sent) == _NEURONS
    again = sum(times - 1 for times in sent.values())
    # Only what was under way when the driver died, one call a worker, may be asked again.
    assert again <= _WORKERS
    columns = ["layer", "neuron", "text", "status", "exemplar_ids", "tokens_in", "tokens_out"]
    assert (
        _explanations(tmp_path).select(columns).equals(_explanations(undisturbed).select(columns))
    )


def test_a_missing_key_stops_the_run_before_the_subject_describes_anything(
    provider: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    finished = _run(_command(provider, tmp_path))
    assert finished.returncode == 2
    assert "OPENAI_API_KEY" in finished.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("artifacts/describe/*/*.parquet"))


def test_a_model_that_the_provider_does_not_know_stops_the_run_with_the_setting_to_change(
    undisturbed: Path, provider: Loopback
) -> None:
    unknown = _command(provider, undisturbed, "explain.client.model=gpt-0")
    finished = _run(unknown)
    assert finished.returncode == 2
    assert "explain.client.model" in finished.stderr.splitlines()[-1]


def _wait_for_requests(provider: Loopback, count: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while len(provider.requests()) < count:
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no requests came"
        time.sleep(0.1)
