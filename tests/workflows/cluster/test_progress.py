"""Progress: a bar at a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re
import sys

import pytest

from neuron_atlas.workflows.cluster import progress as progress_module
from neuron_atlas.workflows.cluster.progress import print_line, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when told to."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def lines(capsys) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_without_a_terminal_a_stage_ends_in_one_plain_line(capsys, clock):
    with progress("capture", 1200, "samples") as advance:
        advance(1200)
        clock.now += 4
    assert lines(capsys) == ["capture    1,200/1,200 samples, 300/s, 4.0 s"]


def test_a_long_stage_says_every_few_seconds_how_far_it_is_and_how_long_it_will_take(capsys, clock):
    with progress("capture", 100, "samples") as advance:
        for _ in range(10):
            clock.now += 1
            advance(5)
    first, *_, last = lines(capsys)
    assert first == "capture    25/100 samples, 5/s, 15 s left"
    assert last == "capture    50/100 samples, 5/s, 10.0 s"


def test_what_was_done_by_an_earlier_run_counts_but_not_towards_the_rate(capsys, clock):
    with progress("explain", 100, "neurons", done=80) as advance:
        clock.now += 10
        advance(10)
    first, middle, last = lines(capsys)
    assert first == "explain    80/100 neurons were done before"
    assert middle == "explain    90/100 neurons, 1/s, 10 s left"
    assert last == "explain    90/100 neurons, 1/s, 10.0 s"


def test_a_stage_with_nothing_left_to_do_is_said_too(capsys, clock):
    with progress("merge", 2, "layers", done=2):
        pass
    assert lines(capsys) == [
        "merge      2/2 layers were done before",
        "merge      2/2 layers, 0/s, 0.0 s",
    ]


def test_a_stage_that_fails_does_not_say_that_it_ended(capsys):
    with pytest.raises(KeyError), progress("capture", 3, "samples"):
        raise KeyError
    assert lines(capsys) == []


def test_at_a_terminal_there_is_a_bar_with_counts_and_rate(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("capture", 40, "samples", done=10) as advance:
        advance(10)
        advance(20)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "capture" in drawn
    assert "━" in drawn
    assert "40/40" in drawn
    assert "samples" in drawn


def test_what_is_said_goes_to_stderr(capsys):
    print_line("a word")
    assert lines(capsys) == ["a word"]
