"""Measure the share of a server's throughput that the simulate stage uses, compared with a bare
client.

A provider on loopback answers every request after a fixed time, so its throughput depends only on
the number of requests in flight. The whole program simulates a small atlas with it, including
workers, journal and limits. Then a bare AsyncOpenAI with a semaphore sends the same requests, with
as many in flight. Both alternate within one run. Throughput comes from the provider's log: answered
requests, divided by the time from the first request to the last answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import openai
from hydra.core.global_hydra import GlobalHydra

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.request_file import (
    FiledRequest,
    RequestFile,
    read_request_files,
)
from neuron_atlas.workflows.atlas import run_atlas
from neuron_atlas.workflows.config.composition import CONF, plain_config, register_resolvers
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.run.stage import Worker
from neuron_atlas.workflows.stages import simulate

MIN_SHARE = 0.95
NEURONS = 48
IN_FLIGHT = 64
LATENCY_S = 2.0
ROUNDS = 2
KEY = "bench-key"
KEY_ENV = "NEURON_ATLAS_BENCH_KEY"


def measure_throughput(
    neurons: int, in_flight: int, latency_s: float, rounds: int
) -> dict[str, Any]:
    """Run stage and bare client in turn; return both throughputs (requests/s) and their ratio."""
    os.environ |= {KEY_ENV: KEY, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(Path.cwd())}
    report: dict[str, list[dict[str, Any]]] = {"stage": [], "bare": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        requests = _prepare(folder, neurons, in_flight)
        for number in range(rounds):
            for name, send in (("stage", _send_by_stage), ("bare", _send_by_bare_client)):
                log = folder / f"{name}-{number}.jsonl"
                with _provider(log, latency_s) as base_url:
                    send(folder, base_url, neurons, in_flight, requests)
                report[name].append(_summarize(log, latency_s))
                print(f"{name:<6} {report[name][-1]}", flush=True)
    means = {
        name: sum(one["requests_per_s"] for one in runs) / len(runs)
        for name, runs in report.items()
    }
    return {
        "in_flight": in_flight,
        "latency_s": latency_s,
        "max_requests_per_s": in_flight / latency_s,
        **report,
        "stage_over_bare": round(means["stage"] / means["bare"], 4),
        "limit": MIN_SHARE,
    }


def missed_targets(report: Mapping[str, Any]) -> list[str]:
    """Return one line for each target that the result misses."""
    missed = []
    if report["stage_over_bare"] < MIN_SHARE:
        missed.append(
            f"{report['stage_over_bare']} of a bare client's throughput; the target is {MIN_SHARE}"
        )
    for stage, bare in zip(report["stage"], report["bare"], strict=True):
        if stage["answered"] < bare["answered"]:
            missed.append(f"{stage['answered']:,} of {bare['answered']:,} requests answered")
    return missed


def _overrides(out: Path, neurons: int, *settings: str) -> list[str]:
    return [
        *("data.count=100", "capture.layers=[1]", "capture.top_n=24", "describe=given"),
        *("explain=dissect", f"explain.neurons.count={neurons}", "explain.neurons_per_task=8"),
        *("score.resamples=100", "cluster.cpus=2", f"out={out}"),
        *settings,
    ]


def _simulator_settings(base_url: str, in_flight: int) -> list[str]:
    limits = "simulate.client.limits"
    return [
        *("simulate=chat", "simulate.estimator=integers", f"simulate.client.base_url={base_url}"),
        *(f"simulate.client.api_key_env={KEY_ENV}", f"simulate.client.concurrency={in_flight}"),
        *(f"{limits}.requests_per_minute=null", f"{limits}.tokens_per_minute=null"),
        *(f"{limits}.concurrency={in_flight}", "simulate.client.timeout_s=60"),
    ]


def _prepare(folder: Path, neurons: int, in_flight: int) -> list[FiledRequest]:
    """Run all stages up to the explanations, and return the requests of the simulate stage."""
    base = folder / "base"
    context = run_atlas(_composed(_overrides(base, neurons)))
    config = _composed(
        _overrides(base, neurons, *_simulator_settings("http://127.0.0.1:1/v1", in_flight))
    )
    context.settings = replace(context.settings, simulate=read_settings(config).simulate)
    explainer = context.settings.explain.explainer.name
    stage = simulate.make_stage(
        explainer, is_one_of_several=False, is_dry_run=False, uses_clusters=False
    )
    step = stage.steps[-1]
    for item in step.items(context, folder / "none"):
        file = RequestFile(folder / "requests" / f"{item.key}.jsonl")
        step.work(Worker(folder / "none", calls=CallOptions(file=file)), *item.inputs)
    return list(read_request_files(sorted((folder / "requests").glob("*.jsonl"))))


def _send_by_stage(
    folder: Path, base_url: str, neurons: int, in_flight: int, requests: list[FiledRequest]
) -> None:
    out = folder / "run"
    shutil.copytree(folder / "base", out)
    overrides = _overrides(out, neurons, *_simulator_settings(base_url, in_flight))
    finished = subprocess.run(
        [sys.executable, "-m", "neuron_atlas.workflows.atlas", *overrides],
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(out)
    if finished.returncode:
        raise RuntimeError(finished.stderr)


def _send_by_bare_client(
    folder: Path, base_url: str, neurons: int, in_flight: int, requests: list[FiledRequest]
) -> None:
    async def work() -> None:
        semaphore = asyncio.Semaphore(in_flight)
        async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url) as client:

            async def send(body: dict[str, Any]) -> None:
                try:
                    await client.chat.completions.create(**body)
                finally:
                    semaphore.release()

            async with asyncio.TaskGroup() as group:
                for request in requests:
                    await semaphore.acquire()
                    group.create_task(send(request.body()))

    asyncio.run(work())


def _summarize(log: Path, latency_s: float) -> dict[str, Any]:
    """Summarize the provider's log. A line is written at the answer, with the request's arrival
    time."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    answered = [line for line in lines if line["status"] == 200]
    arrivals = [line["time"] for line in answered]
    seconds = max(arrivals) + latency_s - min(arrivals)
    return {
        "answered": len(answered),
        "seconds": round(seconds, 2),
        "requests_per_s": round(len(answered) / seconds, 3),
        "most_in_flight": max(line["in_flight"] for line in lines),
    }


def _composed(overrides: list[str]) -> dict[str, Any]:
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return plain_config(hydra.compose("atlas", overrides=overrides))


@contextmanager
def _provider(log: Path, latency_s: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.loopback.provider", "--log", str(log), "--key", KEY]
    process = subprocess.Popen(
        [*command, "--plain", "--with-parent", f"--latency={latency_s}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
