"""What a full disk does to an artifact, and what is said of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts.full_disk import DiskFullError, raise_if_disk_full
from neuron_atlas.tasks.artifacts.location import atomic_file, atomic_folder

FULL = Path("/dev/full")
"""A device on which there is never room."""


def fill() -> None:
    with FULL.open("wb", buffering=0) as stream:
        stream.write(b"1")


def test_it_is_said_which_disk_is_full_and_what_to_do(tmp_path):
    with (
        pytest.raises(DiskFullError) as caught,
        raise_if_disk_full(tmp_path / "not there yet" / "a file"),
    ):
        fill()
    said = str(caught.value)
    assert said.startswith("the disk at '/")
    assert " MB are free, and 'a file' did not fit." in said
    assert said.endswith("free some space, then run the same command again")


def test_a_quota_is_called_one(tmp_path):
    with (
        pytest.raises(DiskFullError, match="the quota of this user on"),
        raise_if_disk_full(tmp_path),
    ):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(PermissionError), raise_if_disk_full(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_nothing_half_written_is_left(tmp_path):
    def write() -> None:
        with atomic_file(tmp_path / "table") as path:
            path.write_bytes(b"half")
            fill()

    def deliver() -> None:
        with atomic_folder(tmp_path / "shard") as folder:
            folder.mkdir()
            (folder / "first").write_bytes(b"whole")
            fill()

    with pytest.raises(DiskFullError):
        write()
    with pytest.raises(OSError, match="No space left"):
        deliver()
    assert list(tmp_path.iterdir()) == []
