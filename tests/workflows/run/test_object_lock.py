"""One run at a time below a prefix of a real object store."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts.location import parse_location
from neuron_atlas.workflows.run import object_lock
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.lock import locked
from tests.loopback.object_store import BUCKET, object_store

LOCK = "a run/.lock"
HOLDER = """
import sys
from neuron_atlas.tasks.artifacts.location import parse_location
from neuron_atlas.workflows.run.lock import locked
with locked(parse_location(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def out(store) -> Path:
    return parse_location(f"s3://{BUCKET}/a run")


@contextmanager
def holder(out) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the lock until it reads the end of its input."""
    command = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        yield program


def refusal(out) -> str:
    with pytest.raises(ConfigError) as caught, locked(out):
        pass
    return str(caught.value)


def test_the_lock_is_there_while_it_is_held_and_nothing_is_left(out, store):
    with locked(out):
        assert store.names() == [LOCK]
    assert store.names() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_fails_or_is_interrupted_lets_go(out, store, error):
    with pytest.raises(error), locked(out):
        raise error
    assert store.names() == []


def test_a_run_interrupted_while_it_takes_the_lock_lets_go(out, store, monkeypatch):
    create = object_lock._create

    def interrupted(*given):
        create(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(object_lock, "_create", interrupted)
    with pytest.raises(KeyboardInterrupt), locked(out):
        pass
    assert store.names() == []


def test_a_second_run_is_refused_with_the_holder_and_the_way_out(out):
    with locked(out):
        message = refusal(out)
    me = f"process {os.getpid()} on {socket.gethostname()} since 2"
    assert message.startswith(f"out: 's3://neurons/a run' is locked by {me}")
    assert message.endswith("neuron-atlas-unlock 's3://neurons/a run'")


@pytest.mark.faults
def test_a_second_program_is_refused_and_the_first_goes_on(out):
    with holder(out) as first:
        assert f"process {first.pid} on " in refusal(out)
        first.communicate("")
    assert first.returncode == 0
    with locked(out):
        pass


@pytest.mark.faults
def test_the_lock_of_a_killed_run_stays_until_it_is_removed_by_command(out, store, capsys):
    with holder(out) as first:
        first.kill()
    assert f"process {first.pid} on " in refusal(out)
    object_lock.main([str(out)])
    assert f"removed the lock of process {first.pid} on " in capsys.readouterr().err
    assert store.names() == []
    with locked(out):
        pass


def test_a_run_whose_lock_was_removed_leaves_the_next_holders_alone(out, store):
    with locked(out):
        object_lock.main([str(out)])
        store.client.pipe_file(f"{BUCKET}/{LOCK}", b"{}")
    assert store.names() == [LOCK]
    assert "is locked by an unknown run" in refusal(out)


def test_a_lock_that_is_released_meanwhile_is_taken(out, store, monkeypatch):
    create, tried = object_lock._create, []

    def in_use_at_first(*given):
        tried.append(given)
        return len(tried) > 1 and create(*given)

    monkeypatch.setattr(object_lock, "_create", in_use_at_first)
    with locked(out):
        assert store.names() == [LOCK]


def test_a_request_that_the_client_repeated_is_no_other_run(out, store, monkeypatch):
    create = object_lock._create
    monkeypatch.setattr(object_lock, "_create", lambda *given: create(*given) and create(*given))
    with locked(out):
        assert store.names() == [LOCK]


def test_unlocking_what_is_not_locked_says_so(out, capsys):
    object_lock.main([str(out)])
    assert capsys.readouterr().err == f"neuron-atlas-unlock: {out} is not locked\n"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("out/demo", "out/demo: the lock of a local folder ends with its run"),
        ("ftp://x/y", "ftp:// is not a supported object store"),
    ],
)
def test_a_wrong_call_of_unlock_ends_with_2_and_a_line(place, message, capsys):
    with pytest.raises(SystemExit) as ended:
        object_lock.main([place])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_said_in_a_line(out):
    missing = parse_location("s3://no-such-bucket/a run")
    with pytest.raises(ConfigError, match=re.escape("there is no such bucket")), locked(missing):
        pass


@pytest.mark.faults
def test_wrong_keys_are_said_in_a_line_that_does_not_show_them(tmp_path, monkeypatch):
    with object_store(tmp_path / "log", asks_for_keys=True) as guarded:
        for name, value in guarded.environment.items():
            monkeypatch.setenv(name, value)
        place = parse_location(f"s3://{BUCKET}/a run")
        place.fs.clear_instance_cache()
        with pytest.raises(ConfigError) as caught, locked(parse_location(str(place))):
            pass
    said = str(caught.value)
    assert said.startswith("out: cannot write below 's3://neurons/a run': ")
    assert "AWS_ACCESS_KEY_ID" in said
    assert "\n" not in said
    assert "someone" not in said
    assert "something" not in said
