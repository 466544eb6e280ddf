"""Kill -9 at fifty random moments of a run. It takes many minutes: `make test-slow ONLY=kill`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loopback.fixture import Loopback
from tests.workflows.killing import (
    STEADY,
    chat_overrides,
    check_what_was_sent,
    explanations,
    run_killed,
    without_answers,
)
from tests.workflows.programs import program

NEURONS = 320
KILLS = 50
SEED = 20261123


@pytest.mark.kill
def test_a_run_killed_fifty_times_ends_as_if_nothing_had_happened(
    provider: Loopback, tmp_path: Path
) -> None:
    settings = ("explain.neurons.types=[visual,text,multi-modal,unknown]",)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with program(
        tmp_path / "first.log", *chat_overrides(provider, undisturbed, NEURONS, *settings)
    ) as running:
        assert running.end() == 0, running.said()
    expected = explanations(undisturbed).select(STEADY)
    assert len(expected) >= 300
    without_answers(undisturbed, killed)
    provider.forget()
    provider.misbehave("slow", times=-1, seconds=0.3)

    disturbed = run_killed(
        provider,
        chat_overrides(provider, killed, NEURONS, *settings),
        tmp_path / "killed.log",
        NEURONS,
        KILLS,
        SEED,
    )

    assert sum(disturbed.killed.values()) == KILLS
    assert explanations(killed).select(STEADY).equals(expected)
    twice, lost = check_what_was_sent(provider, killed)
    print(
        f"\nkilled {dict(disturbed.killed)}; {len(provider.requests())} requests for "
        f"{len(expected)} neurons; {lost} calls without a result, of which {twice} requests were "
        "answered twice"
    )
    # Only a call that was under way when its asker was killed may be answered twice.
    assert twice <= lost <= 2 * KILLS
    assert twice <= KILLS // 4
