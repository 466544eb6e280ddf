"""Several who write the same file or folder at a time, on machines that share a disk."""

from __future__ import annotations

import pytest

from neuron_atlas.tasks.artifacts.location import atomic_file, atomic_folder


@pytest.fixture
def of_several_machines(monkeypatch):
    """Where processes have the same numbers."""
    monkeypatch.setattr("os.getpid", lambda: 7)


def test_one_file_that_two_write_is_that_of_one_or_the_other(of_several_machines, tmp_path):
    path = tmp_path / "table"
    with atomic_file(path) as first:
        first.write_text("first, long", encoding="utf-8")
        with atomic_file(path) as second:
            second.write_text("second", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "second"
    assert path.read_text(encoding="utf-8") == "first, long"
    assert list(tmp_path.iterdir()) == [path]


def test_one_folder_that_two_fill_is_that_of_the_one_who_was_first(of_several_machines, tmp_path):
    folder = tmp_path / "shard"
    with atomic_folder(folder) as first:
        first.mkdir()
        (first / "a").write_text("a", encoding="utf-8")
        with atomic_folder(folder) as second:
            second.mkdir()
            (second / "a").write_text("a", encoding="utf-8")
            (second / "b").write_text("b", encoding="utf-8")
        (first / "b").write_text("b", encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    assert list(tmp_path.iterdir()) == [folder]
