"""What Ray needs of the machine: a short temporary folder, shared memory, open files."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest
from ray._private import services

from neuron_atlas.workflows.cluster import machine
from neuron_atlas.workflows.cluster.machine import (
    LONGEST_TEMP,
    object_store_folder,
    prepare_machine,
)
from neuron_atlas.workflows.cluster.start import start_with_retries
from neuron_atlas.workflows.run.errors import ConfigError, RunError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "")  # Restored, whatever the test sets.
    monkeypatch.delenv("TMPDIR", raising=False)


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_is_replaced_with_a_line(
    monkeypatch, capsys, tmp_path, variable
):
    folder = tmp_path / ("x" * 100)
    monkeypatch.setenv(variable, str(folder))
    prepare_machine()
    assert os.environ["RAY_TMPDIR"] == "/tmp"
    said = capsys.readouterr().err
    assert said.startswith(f"cluster    Ray's files are in /tmp/ray: '{folder}' is longer than ")


def test_a_short_folder_is_used_without_a_line(monkeypatch, capsys):
    folder = Path("/tmp/atlas-ray")
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    try:
        prepare_machine()
        assert os.environ["RAY_TMPDIR"] == str(folder)
    finally:
        folder.rmdir()
    assert capsys.readouterr().err == ""


def test_the_longest_folder_leaves_room_for_the_socket_of_a_long_process_id():
    session = "session_2026-01-01_00-00-00_000000_4194304"
    path = f"/{'x' * (LONGEST_TEMP - 1)}/ray/{session}/sockets/plasma_store.1"
    assert len(path) <= machine._LONGEST_SOCKET


def test_a_file_in_place_of_the_folder_is_replaced_too(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine, "LONGEST_TEMP", 200)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    prepare_machine()
    assert os.environ["RAY_TMPDIR"] == "/tmp"
    assert "cannot be written" in capsys.readouterr().err


def test_without_any_folder_the_call_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(machine, "_problem", lambda folder: "cannot be written")
    with pytest.raises(ConfigError, match=r"^RAY_TMPDIR: .*Set RAY_TMPDIR to a writable folder"):
        prepare_machine()


def test_a_machine_without_shared_memory_keeps_ray_s_objects_on_disk(monkeypatch, tmp_path):
    assert object_store_folder() is None
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path / "nothing")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert object_store_folder() == "/tmp"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (resource.RLIMIT_NOFILE, "this shell allows 64 open files, and Ray needs 512; .*ulimit -n"),
        (resource.RLIMIT_FSIZE, "this shell allows 64 bytes in a file, and Ray .*ulimit -f unlim"),
    ],
)
def test_a_limit_that_is_too_low_is_refused_with_the_remedy(monkeypatch, kind, said):
    limits = {resource.RLIMIT_NOFILE: (9999, 9999), resource.RLIMIT_FSIZE: (-1, -1)}
    monkeypatch.setattr(resource, "getrlimit", lambda of: (limits | {kind: (64, 64)})[of])
    with pytest.raises(ConfigError, match=said):
        prepare_machine()


def test_a_low_limit_is_raised_as_far_as_it_may_be(monkeypatch):
    limits = {resource.RLIMIT_NOFILE: (256, 4096), resource.RLIMIT_FSIZE: (-1, -1)}
    raised = []
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", lambda *given: raised.append(given))
    prepare_machine()
    assert raised == [(resource.RLIMIT_NOFILE, (4096, 4096))]


def test_ray_s_processes_are_not_in_the_programs_process_group():
    def start() -> int:
        process = services.ConsolePopen(["sleep", "60"], preexec_fn=None, creationflags=0)
        try:
            return os.getpgid(process.pid)
        finally:
            process.kill()
            process.wait()

    assert start_with_retries(start) != os.getpgid(0)
    assert services.ConsolePopen.__bases__ == (subprocess.Popen,)


@pytest.mark.parametrize(
    "error",
    [Exception("no raylet"), OSError(28, "No space left on device"), RuntimeError("no port")],
)
def test_an_error_of_the_machine_is_a_failed_run(error):
    def start() -> None:
        raise error

    with pytest.raises(RunError, match=r"^Ray did not start: "):
        start_with_retries(start)
