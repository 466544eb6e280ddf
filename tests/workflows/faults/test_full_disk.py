"""A disk that is full, three times under one run that is called again, in the end with room for
all. `make test-slow ONLY=faults`; wants root, for it mounts a small disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts import location as location_module
from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.tasks.artifacts.location import atomic_file, atomic_folder, complete_folders
from tests.infra.clusters import running
from tests.workflows.faults.faults import atlas

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]
SIZES = ("100k", "2m", "6m")
"""Too small for the samples, for the captured traces, and for the report and MLflow's runs."""


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def resize(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


@dataclass
class Story:
    out: Path
    statuses: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("full")
    with small_disk(folder / "disk", SIZES[0]) as disk:
        told = Story(disk / "out")
        for size in (*SIZES, "256m"):
            resize(disk, size)
            command = atlas(told.out, "capture.shards=6", "cluster.actors=1")
            with running(command, folder / f"{size}.log") as run:
                told.statuses.append(run.end())
                told.said.append(run.said())
        yield told


def test_a_full_disk_ends_the_run_with_a_line_that_says_so(story):
    assert story.statuses == [1, 1, 1, 0], "\n".join(story.said)
    for said in story.said[:-1]:
        *_, last = said.splitlines()
        assert last.startswith("neuron-atlas: the disk at '")
        assert last.endswith("free some space, then run the same command again")
        assert "Traceback" not in said


def test_what_was_finished_before_is_not_done_again(story):
    assert "samples    already done" in story.said[2]
    assert "samples    already done" in story.said[3]


def test_the_rows_are_those_of_a_run_with_room(story, strange_tables):
    assert strange_tables(story.out) == []


def fill(folder: Path) -> None:
    """Two files, of which the second finds the disk full."""
    for name, size in (("first", 300_000), ("second", 900_000)):
        with atomic_file(folder / name) as path:
            path.write_bytes(b"1" * size)


def test_a_shard_that_did_not_fit_is_not_taken_for_one(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(DiskFullError), atomic_folder(disk / "shard") as folder:
            fill(folder)
        assert complete_folders(disk, ["shard"]) == set()
        assert shutil.disk_usage(disk).used == 0


def test_control_without_the_protection_half_a_shard_is_taken_for_a_whole_one(
    tmp_path, monkeypatch
):
    @contextmanager
    def unprotected(folder: Path) -> Iterator[Path]:
        yield folder

    monkeypatch.setattr(location_module, "atomic_folder", unprotected)
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(DiskFullError), location_module.atomic_folder(disk / "shard") as folder:
            fill(folder)
        assert complete_folders(disk, ["shard"]) == {"shard"}
        assert [path.name for path in (disk / "shard").iterdir()] == ["first"]
