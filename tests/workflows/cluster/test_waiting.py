"""A wait of more than ten seconds is a line."""

from __future__ import annotations

import time

import pytest

from neuron_atlas.workflows.cluster import waiting
from neuron_atlas.workflows.cluster.waiting import WaitLines, explained_wait


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    return now


def test_the_first_line_comes_after_ten_seconds_and_the_next_after_a_minute(clock, capsys):
    lines = WaitLines("capture")
    for _ in range(100):
        lines.look("a free GPU")
        clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [
        "capture    waiting for a free GPU, 10 s so far",
        "capture    waiting for a free GPU, 70 s so far",
    ]


def test_a_new_wait_starts_from_zero(clock, capsys):
    lines = WaitLines("capture")
    clock[0] += 9
    lines.restart()
    clock[0] += 9
    lines.look("a free GPU")
    assert capsys.readouterr().err == ""


def test_a_block_that_takes_long_says_what_it_waits_for(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "FIRST_LINE_S", 0.05)
    with explained_wait("cluster", "Ray to start"):
        time.sleep(0.5)
    assert capsys.readouterr().err == "cluster    waiting for Ray to start, 0 s so far\n"


def test_a_short_block_says_nothing(capsys):
    with explained_wait("cluster", "Ray to start"):
        pass
    assert capsys.readouterr().err == ""
