"""Kills a run with a chat model at random moments, and looks at what is left."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.loopback.fixture import Loopback
from tests.waiting import wait_until
from tests.workflows.programs import Program, program

STEADY = ["layer", "neuron", "explainer", "type", "text", "status", "exemplar_ids"]
"""Columns of an explanation that no kill may change."""


@dataclass
class Disturbed:
    """What a killed run went through."""

    killed: Counter[str] = field(default_factory=Counter)
    said: str = ""


def chat_overrides(provider: Loopback, out: Path, neurons: int, *settings: str) -> list[str]:
    """A run of the whole program whose neurons are explained by the provider on loopback."""
    return [
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
        f"explain.neurons.count={neurons}",
        "explain.neurons_per_task=10",
        "score.resamples=100",
        "groups.samples=0",
        "steering.neurons_per_type=0",
        "report.neurons_per_type=2",
        "report.site.write=false",
        "cluster.cpus=2",
        f"out={out}",
        *settings,
    ]


def explanations(out: Path) -> pa.Table:
    parts = sorted(out.glob("artifacts/explain/*/explanations-*.parquet"))
    table = pa.concat_tables(pq.read_table(part) for part in parts)
    return table.sort_by([("layer", "ascending"), ("neuron", "ascending")])


def without_answers(
    undisturbed: Path, out: Path, stages: Sequence[str] = ("explain", "simulate", "score", "report")
) -> None:
    """A copy of a run as it was before anything was asked by the first of these stages."""
    shutil.copytree(undisturbed, out, dirs_exist_ok=True)
    for stage in stages:
        shutil.rmtree(out / "artifacts" / stage)
    for path in out.glob("journal.sqlite*"):
        path.unlink()
    shutil.rmtree(out / "outbox", ignore_errors=True)


def run_killed(
    provider: Loopback,
    overrides: list[str],
    log: Path,
    requests: int,
    kills: int,
    seed: int,
    work: str = "ray::explain:",
) -> Disturbed:
    """Kill the driver or one of its workers, as often the one as the other, each time that some
    number of the `requests` was answered, and start it again where it was the driver, until it
    ends. work: the name of the tasks whose workers are killed."""
    draw = random.Random(seed)
    victims = [("driver", "worker")[place % 2] for place in range(kills)]
    draw.shuffle(victims)
    # Not at the very end: each kill shall meet a run that asks.
    moments = sorted(draw.sample(range(1, requests - 4), kills))
    disturbed = Disturbed()
    while True:
        with program(log, *overrides) as running:
            while moments and _goes_on_until(provider, running, moments[0]):
                moments.pop(0)
                time.sleep(draw.uniform(0, 0.4))
                victim = victims.pop()
                disturbed.killed[victim] += 1
                if victim == "worker":
                    _kill_worker(running, draw, work)
                    continue
                running.process.kill()
                # Its workers go on for a moment, with nobody to tell; then they are killed too.
                time.sleep(draw.uniform(0, 2))
                break
            else:
                status = running.end()
                disturbed.said = running.said()
                assert status == 0, disturbed.said
                return disturbed


def check_what_was_sent(provider: Loopback, out: Path) -> tuple[int, int]:
    """Nothing was sent after its answer was on the disk, and what was sent twice is known to be.

    Returns the requests that were answered more than once, and the calls without a result: those
    whose answer was on its way when its asker was killed, which nobody can tell from unanswered.
    """
    with sqlite3.connect(out / "journal.sqlite") as database:
        settled = dict(database.execute("SELECT request_hash, settled_at FROM answers"))
        lost = Counter(
            row[0]
            for row in database.execute("SELECT request_hash FROM calls WHERE outcome IS NULL")
        )
    answered: dict[str, int] = defaultdict(int)
    for line in provider.requests():
        key = line["client_request_id"]
        assert line["time"] <= settled[key], "sent again though its answer was journaled"
        answered[key] += line["answered"]
    for key, times in answered.items():
        assert times - 1 <= lost[key], "answered twice, and the journal does not say so"
    return sum(times > 1 for times in answered.values()), sum(lost.values())


def _goes_on_until(provider: Loopback, running: Program, answered: int) -> bool:
    """Whether the run still goes on once so many requests were answered."""

    def has_answered() -> bool:
        digests = {line["digest"] for line in provider.requests() if line["answered"]}
        return len(digests) >= answered

    return wait_until(
        has_answered,
        is_alive=lambda: running.process.poll() is None,
        log=lambda: f"{running.said()}\n{len(provider.requests())} requests",
        every_s=0.1,
    )


def _kill_worker(running: Program, draw: random.Random, work: str) -> None:
    """SIGKILL one of the processes that ask, as soon as there is one."""
    workers: list[psutil.Process] = []
    while not workers:
        assert running.process.poll() is None, f"it ended early:\n{running.said()}"
        workers = [process for process in running.processes() if work in " ".join(_words(process))]
    with suppress(psutil.NoSuchProcess):
        draw.choice(workers).kill()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
