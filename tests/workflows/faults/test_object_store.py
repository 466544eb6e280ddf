"""A whole run on an object store: stopped, gone on with on another machine."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from neuron_atlas.workflows.run.object_lock import main as unlock
from tests.infra.clusters import running
from tests.loopback.fixture import Loopback
from tests.loopback.object_store import BUCKET, ObjectStore, object_store
from tests.workflows.faults.faults import atlas
from tests.workflows.killing import STEADY, chat_overrides, explanations
from tests.workflows.programs import program

pytestmark = pytest.mark.faults
NEURONS = 30
URI = f"s3://{BUCKET}/a group/run"


@dataclass
class Story:
    store: ObjectStore
    folder: Path
    said: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    journal_after_stop: set[str] = field(default_factory=set)
    answered: list[Counter[str]] = field(default_factory=list)

    def fetch(self, name: str) -> Path:
        """A copy of what lies below the run's prefix, as another client reads it."""
        to = self.folder / "fetched" / name
        self.store.client.get(f"{BUCKET}/a group/run", str(to), recursive=True)
        return to


def settings(provider: Loopback) -> list[str]:
    return [text for text in chat_overrides(provider, Path("x"), NEURONS) if text != "out=x"]


def answered(provider: Loopback) -> Counter[str]:
    return Counter(line["digest"] for line in provider.requests() if line["answered"])


def answers(journal: Path) -> set[str]:
    with sqlite3.connect(journal) as database:
        return {row[0] for row in database.execute("SELECT request_hash FROM answers")}


@pytest.fixture(scope="module")
def surroundings(
    loopback_process: Loopback, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStore]:
    with (
        object_store(tmp_path_factory.mktemp("store") / "log") as store,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in store.environment.items():
            patch.setenv(name, value)
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        yield store


@pytest.fixture(scope="module")
def on_a_disk(
    surroundings: ObjectStore,
    loopback_process: Loopback,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("on-a-disk")
    with program(folder / "log", *settings(loopback_process), f"out={folder / 'out'}") as run:
        assert run.end() == 0, run.said()
    return folder / "out"


@pytest.fixture(scope="module")
def story(
    surroundings: ObjectStore,
    on_a_disk: Path,
    loopback_process: Loopback,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    """Stopped while it explains; gone on with from another machine, which has another cache; and,
    as the control, from a third without the copy of the journal, on a copy of the run."""
    provider, told = loopback_process, Story(surroundings, tmp_path_factory.mktemp("s3"))

    def run(machine: str, uri: str, *, stop_after: int | None = None) -> None:
        provider.forget()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(told.folder / machine))
            log = told.folder / f"{machine}.log"
            with program(log, *settings(provider), f"out={uri}") as running:
                if stop_after is not None:
                    running.run_until(lambda: len(answered(provider)) >= stop_after)
                    running.process.terminate()
                told.statuses.append(running.end())
            told.said.append(log.read_text(encoding="utf-8"))
        told.answered.append(answered(provider))

    provider.misbehave("slow", times=-1, seconds=0.3)
    run("first machine", URI, stop_after=6)
    provider.behave()
    told.journal_after_stop = answers(told.fetch("stopped") / "journal.sqlite")
    client, prefix = surroundings.client, f"{BUCKET}/a group"
    for name in client.find(f"{prefix}/run"):
        if not name.endswith("journal.sqlite"):
            client.copy(name, name.replace(f"{prefix}/run", f"{prefix}/without journal"))
    run("second machine", URI)
    run("third machine", f"s3://{prefix}/without journal")
    return told


def test_a_stopped_run_has_copied_its_journal(story):
    assert story.statuses[0] == 130, story.said[0]
    assert len(story.journal_after_stop) >= 6
    assert "journal of calls and MLflow's runs are in " in story.said[0]


def test_another_machine_goes_on_without_paying_twice(story):
    assert story.statuses[1] == 0, story.said[1]
    assert not story.answered[0] & story.answered[1]
    assert len(story.answered[0] + story.answered[1]) >= NEURONS


def test_control_without_the_copy_the_same_is_paid_twice(story):
    assert story.statuses[2] == 0, story.said[2]
    assert len(story.answered[0] & story.answered[2]) >= 6


def test_the_rows_are_those_of_a_run_on_a_disk(story, on_a_disk):
    mine = explanations(story.fetch("finished")).select(STEADY)
    assert mine.equals(explanations(on_a_disk).select(STEADY))


def test_nothing_is_left_of_the_lock_or_of_scratch_and_no_key_is_in_it(story):
    names = story.store.names()
    assert not [name for name in names if "/." in name]
    folder = story.fetch("all")
    secret = story.store.environment["AWS_SECRET_ACCESS_KEY"].encode()
    written = [path for path in folder.rglob("*") if path.is_file()]
    written += list(story.folder.glob("*.log"))
    for path in written:
        assert secret not in path.read_bytes(), path
        assert os.environ["OPENAI_API_KEY"].encode() not in path.read_bytes(), path


def test_a_wrong_bucket_ends_with_2_and_a_line(surroundings, tmp_path):
    with program(tmp_path / "log", "out=s3://no-such-bucket/run") as running:
        assert running.end() == 2
    assert running.said().splitlines() == [
        "neuron-atlas: out: cannot write below 's3://no-such-bucket/run': there is no such bucket "
        "(The specified bucket does not exist)"
    ]


def test_a_run_whose_driver_was_killed_goes_on_once_unlocked_and_is_alone_on_its_prefix(
    surroundings, tmp_path, strange_tables
):
    command = [*atlas(tmp_path, "cluster.actors=1")[:-1], f"out=s3://{BUCKET}/killed"]
    caches = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def captured() -> list[str]:
        return [name for name in surroundings.names() if "/shards/" in name and "whole" in name]

    with running(command, tmp_path / "log", **caches) as run:
        run.run_until(lambda: len(captured()) >= 2)
        run.process.kill()
        run.end()
    assert len(captured()) < 12
    with running(command, tmp_path / "locked.log", **caches) as locked:
        assert locked.end() == 2
        assert f"neuron-atlas-unlock s3://{BUCKET}/killed" in locked.said()
    unlock([f"s3://{BUCKET}/killed"])
    with running(command, tmp_path / "again.log", **caches) as again:
        again.run_until(lambda: "samples were done before" in again.said())
        with running(command, tmp_path / "second.log", **caches) as second:
            assert second.end() == 2
            assert "'s3://neurons/killed' is locked by process" in second.said()
        assert again.end() == 0, again.said()
    surroundings.client.get(f"{BUCKET}/killed", str(tmp_path / "out"), recursive=True)
    assert strange_tables(tmp_path / "out") == []
