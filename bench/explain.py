"""Measure how much of a provider's rate limits is used, compared with the plain openai library.

    python -m bench.explain [--seconds 60] [--out bench/explain.json]

A provider on loopback enforces 3,000 requests and 2,000,000 tokens in any 60 s. Four processes call
it (a) through this project's account, a Ray actor, and (b) with plain AsyncOpenAI, its retries and
a semaphore. The provider's log is evaluated after a warm-up that fills the sliding window. Rejected
calls count against the limit, as with the real provider, so clients that send too early keep being
rejected. Then one process handles 20,000 queued neurons with 500 calls in flight, to measure its
memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import ray

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import connect, in_parallel
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.models.account import open_account

REQUESTS_PER_MINUTE = 3_000
TOKENS_PER_MINUTE = 2_000_000
WORKERS = 4
WARM_UP_S = 65.0
LATENCY_S = 2.0
ANSWER_TOKENS = 300
NEURONS = 20_000
IN_FLIGHT = 500
MIN_SHARE = 0.97
MAX_MEMORY_MB = 1_000
KEY = "bench-key"
KEY_ENV = "NEURON_ATLAS_BENCH_KEY"
PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
_WORDS = "A neuron answers to what it is shown, and this is what it was shown. " * 20


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Measure the used share of a provider's limits.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--only", choices=("rate", "memory"))
    parser.add_argument("--out", type=Path, default=Path("bench/explain.json"))
    options = parser.parse_args()
    os.environ |= {KEY_ENV: KEY, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(Path.cwd())}
    os.environ["RAY_AUTH_MODE"] = "disabled"
    result: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()}
    }
    result["limits"] = {"requests": REQUESTS_PER_MINUTE, "tokens": TOKENS_PER_MINUTE}
    if options.only != "memory":
        with tempfile.TemporaryDirectory() as folder:
            result["neuron-atlas"] = _measured(Path(folder), _account_client, options.seconds)
            _show("neuron-atlas", result["neuron-atlas"])
        with tempfile.TemporaryDirectory() as folder:
            result["AsyncOpenAI"] = _measured(Path(folder), _plain_client, options.seconds)
            _show("AsyncOpenAI", result["AsyncOpenAI"])
    if options.only != "rate":
        with tempfile.TemporaryDirectory() as folder:
            result["queue"] = _queue(Path(folder), options.neurons)
        print(json.dumps(result["queue"], indent=2))
    if options.only and options.out.is_file():  # Keep the other half's earlier result.
        result = json.loads(options.out.read_text(encoding="utf-8")) | result
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    missed = missed_targets(result)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    sys.exit(1 if missed else 0)


def missed_targets(result: Mapping[str, Any]) -> list[str]:
    """Return one line for each target that the result misses."""
    missed = []
    if (rate := result.get("neuron-atlas")) is not None:
        if rate["achieved_over_permitted"] < MIN_SHARE:
            missed.append(
                f"{rate['achieved_over_permitted']} of the permitted rate; target: {MIN_SHARE}"
            )
        if rate["turned_down"]:
            missed.append(f"{rate['turned_down']:,} calls rejected; the target is 0")
    if (queue := result.get("queue")) is not None:
        if queue["answered"] < queue["neurons"]:
            missed.append(f"{queue['answered']:,} of {queue['neurons']:,} neurons answered")
        if queue["peak_memory_mb"] >= MAX_MEMORY_MB:
            missed.append(f"{queue['peak_memory_mb']:,} MB; the limit is {MAX_MEMORY_MB:,} MB")
    return missed


def _measured(folder: Path, client: Any, seconds: float) -> dict[str, Any]:
    """Run four workers for a warm-up and then for `seconds`; summarize the provider's log."""
    limits = [
        f"--requests-per-minute={REQUESTS_PER_MINUTE}",
        f"--tokens-per-minute={TOKENS_PER_MINUTE}",
    ]
    with _provider(folder, *limits, f"--latency={LATENCY_S}") as (base_url, log):
        client(base_url, folder, WARM_UP_S + seconds)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    start = min(line["time"] for line in lines)
    window = [line for line in lines if WARM_UP_S <= line["time"] - start < WARM_UP_S + seconds]
    admitted = [line for line in window if line["status"] == 200]
    tokens = sum(line["asked_tokens"] for line in admitted)
    shares = {
        "requests": len(admitted) / (REQUESTS_PER_MINUTE * seconds / 60),
        "tokens": tokens / (TOKENS_PER_MINUTE * seconds / 60),
    }
    answered = [line for line in lines if line["status"] == 200]
    minutes = (WARM_UP_S + seconds) / 60
    return {
        "seconds": seconds,
        "answered": len(admitted),
        "achieved_over_permitted": round(max(shares.values()), 4),
        "shares": {name: round(share, 4) for name, share in shares.items()},
        "turned_down": sum(line["status"] == 429 for line in window),
        "answered_per_minute_in_all": round(len(answered) / minutes),
        "turned_down_in_all": sum(line["status"] == 429 for line in lines),
    }


def _account_client(base_url: str, folder: Path, seconds: float) -> None:
    limits = LimitSettings(REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, concurrency=1000)
    settings = _settings(base_url, limits, 100)
    with (
        cluster(ClusterSettings(cpus=WORKERS)),
        open_account(folder / "journal.sqlite", "bench", None, settings, PRICES) as account,
    ):
        account.share_limits()
        calls = CallOptions(account)
        worker = ray.remote(num_cpus=1)(_run_worker)
        ray.get([worker.remote(settings, calls, w, seconds) for w in range(WORKERS)])


def _run_worker(settings: ClientSettings, calls: CallOptions, worker: int, seconds: float) -> None:
    async def work() -> None:
        deadline = time.monotonic() + seconds
        async with connect(settings, calls, PRICES) as connection:

            def requests() -> Iterator[Request]:
                number = 0
                while time.monotonic() < deadline:
                    number += 1
                    yield _request(worker, number)

            await in_parallel(connection.ask, requests(), settings.concurrency)

    asyncio.run(work())


def _plain_client(base_url: str, folder: Path, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_run_plain_client, args=(base_url, worker, seconds))
        for worker in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _run_plain_client(base_url: str, worker: int, seconds: float) -> None:
    """Send requests in the usual way: a semaphore, and the library's own retries."""

    async def work() -> None:
        deadline = time.monotonic() + seconds
        semaphore = asyncio.Semaphore(100)
        tasks: set[asyncio.Task[None]] = set()
        async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=2) as client:

            async def ask(number: int) -> None:
                body = _request(worker, number).body("gpt-4o")
                try:
                    await client.chat.completions.create(**body)
                except openai.APIError:
                    pass
                finally:
                    semaphore.release()

            number = 0
            while time.monotonic() < deadline:
                await semaphore.acquire()
                number += 1
                task = asyncio.ensure_future(ask(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    asyncio.run(work())


def _queue(folder: Path, neurons: int) -> dict[str, Any]:
    with _provider(folder, "--latency=2") as (base_url, log):
        script = (
            "import sys; from bench.explain import run_queue; "
            "run_queue(sys.argv[1], sys.argv[2], int(sys.argv[3]))"
        )
        start = time.monotonic()
        finished = subprocess.run(
            [sys.executable, "-c", script, base_url, str(folder / "journal.sqlite"), str(neurons)],
            check=True,
            capture_output=True,
            text=True,
        )
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    answered = {line["client_request_id"] for line in lines if line["status"] == 200}
    return {
        "neurons": neurons,
        "answered": len(answered),
        # More than answered if calls timed out and were retried.
        "requests_sent": len(lines),
        "most_in_flight": max(line["in_flight"] for line in lines),
        "peak_memory_mb": int(finished.stdout),
        "seconds": round(time.monotonic() - start, 1),
    }


def run_queue(base_url: str, journal: str, neurons: int) -> None:
    """Send one request with a picture per neuron, IN_FLIGHT at once; print peak memory in MB."""
    settings = _settings(base_url, LimitSettings(concurrency=IN_FLIGHT), IN_FLIGHT)

    async def work() -> None:
        async with connect(
            settings, CallOptions(LocalAccount(journal, limits=settings.limits)), PRICES
        ) as connection:

            async def ask(number: int) -> str:
                image = {"url": _picture(number), "detail": "low"}
                words = {"type": "text", "text": f"{number}"}
                parts = [words, {"type": "image_url", "image_url": image}]
                request = Request([{"role": "user", "content": parts}], {"max_tokens": 100})
                return (await connection.ask(request)).status

            statuses = await in_parallel(ask, range(neurons), IN_FLIGHT)
            assert set(statuses) == {"ok"}

    asyncio.run(work())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _picture(number: int) -> str:
    """Return a distinct picture of 160 kB, the size of a neuron's eight samples of 20 kB."""
    noise = random.Random(number).randbytes(8 * 20_000)
    return f"data:image/jpeg;base64,{base64.b64encode(noise).decode()}"


def _settings(base_url: str, limits: LimitSettings, concurrency: int) -> ClientSettings:
    return ClientSettings(
        base_url=base_url, limits=limits, api_key_env=KEY_ENV, concurrency=concurrency
    )


def _request(worker: int, number: int) -> Request:
    """Return a request of about 650 tokens by the provider's count, so both limits are close."""
    content = f"{worker}/{number}: {_WORDS}"
    return Request([{"role": "user", "content": content}], {"max_completion_tokens": ANSWER_TOKENS})


@contextmanager
def _provider(folder: Path, *options: str) -> Iterator[tuple[str, Path]]:
    log = folder / "requests.jsonl"
    command = [sys.executable, "-m", "tests.loopback.provider", "--log", str(log)]
    process = subprocess.Popen(
        [*command, "--key", KEY, "--plain", "--with-parent", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), log
    finally:
        process.kill()
        process.wait()


def _show(name: str, result: dict[str, Any]) -> None:
    print(
        f"{name:<14} {result['achieved_over_permitted']:.3f} of the permitted rate, "
        f"{result['turned_down']:,} rejected ({result['turned_down_in_all']:,} with the warm-up)",
        flush=True,
    )


if __name__ == "__main__":
    main()
