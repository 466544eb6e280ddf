"""One run at a time below a prefix of a real object store."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts.location import location
from neuron_atlas.workflows.run import object_lock
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall
from neuron_atlas.workflows.run.lock import locked
from tests.loopback.object_store import BUCKET, object_store

LOCK = "a run/.lock"
HOLDER = """
import sys
from neuron_atlas.tasks.artifacts.location import location
from neuron_atlas.workflows.run import object_lock
from neuron_atlas.workflows.run.lock import locked
object_lock._BEAT_S = 0.2
with locked(location(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def out(store, monkeypatch) -> Path:
    for name, seconds in (("_BEAT_S", 0.2), ("_LEASE_S", 2.0), ("_LOOK_EVERY_S", 0.1)):
        monkeypatch.setattr(object_lock, name, seconds)
    return location(f"s3://{BUCKET}/a run")


def write_lock(store, **differing) -> None:
    holder = json.loads(object_lock._content()) | {"run": "another"} | differing
    store.client.pipe_file(f"{BUCKET}/{LOCK}", json.dumps(holder).encode())


def test_the_lock_is_there_while_it_is_held_and_nothing_is_left(out, store):
    with locked(out):
        assert store.names() == [LOCK]
    assert store.names() == []


@pytest.mark.faults
def test_a_second_run_is_refused_and_the_first_goes_on(out):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=-1, stdout=-1, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        holder = f"process {first.pid} on "
        with pytest.raises(WrongCall) as caught, locked(out):
            pass
        first.communicate("")
    assert first.returncode == 0
    assert str(caught.value).startswith(f"out: another run ({holder}")
    assert "is writing to 's3://neurons/a run'; wait for it" in str(caught.value)
    with locked(out):
        pass


@pytest.mark.faults
def test_a_run_that_was_killed_on_this_machine_holds_nothing(out, monkeypatch):
    monkeypatch.setattr(object_lock, "_LEASE_S", 90.0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=-1, stdout=-1, text=True
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
    begun = time.monotonic()
    with locked(out):
        assert time.monotonic() - begun < object_lock._LEASE_S / 2


@pytest.mark.faults
def test_one_on_another_machine_holds_it_until_it_is_not_heard_of_for_long(out, store):
    write_lock(store, host="elsewhere")
    begun = time.monotonic()
    with locked(out):
        assert time.monotonic() - begun > object_lock._LEASE_S - 1  # The store's times are whole.


def test_a_run_whose_lock_another_took_over_ends(out, store):
    def hold() -> None:
        with locked(out):
            for _ in range(200):  # The other gives signs of life too, and one may be overwritten.
                write_lock(store, host="elsewhere")
                time.sleep(0.1)

    with pytest.raises(RunFailed, match="another began to write"):
        hold()
    assert store.names() == [LOCK]  # It is the other's.


def test_a_bucket_that_is_not_there_is_said_in_a_line(out):
    missing = location("s3://no-such-bucket/a run")
    with pytest.raises(WrongCall, match=re.escape("there is no such bucket")), locked(missing):
        pass


@pytest.mark.faults
def test_wrong_keys_are_said_in_a_line_that_does_not_show_them(tmp_path, monkeypatch):
    with object_store(tmp_path / "log", asks_for_keys=True) as guarded:
        for name, value in guarded.environment.items():
            monkeypatch.setenv(name, value)
        place = location(f"s3://{BUCKET}/a run")
        place.fs.clear_instance_cache()
        with pytest.raises(WrongCall) as caught, locked(location(str(place))):
            pass
    said = str(caught.value)
    assert said.startswith("out: cannot write below 's3://neurons/a run': ")
    assert "AWS_ACCESS_KEY_ID" in said
    assert "\n" not in said
    assert "someone" not in said
    assert "something" not in said


def test_of_two_that_take_over_what_a_dead_run_left_one_is_refused(out, store, monkeypatch):
    write_lock(store, process=2**22 + 1)  # Larger than any process number.
    other = {"host": "elsewhere", "process": 7}
    monkeypatch.setattr(object_lock.time, "sleep", lambda _: write_lock(store, **other))
    with pytest.raises(WrongCall, match="process 7 on elsewhere"), locked(out):
        pass
