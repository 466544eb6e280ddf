"""What the simulate stage finds out of a server before it begins, and what it says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import ClientSettings
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.simulate.chat import ChatSimulator
from neuron_atlas.tasks.simulate.prompt_logprobs import PromptLogprobs
from neuron_atlas.workflows.stages import simulate
from tests.loopback.fixture import Loopback

PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
NOBODY = ClientSettings(base_url="http://127.0.0.1:1/v1", max_attempts=1)


class _Worker:
    """In the place of a task of Ray."""

    @staticmethod
    def remote(simulator: Any, calls: Calls) -> Any:
        return simulator.agree(calls)


class _OpenCalls:
    def live(self) -> Calls:
        return Calls()


def agree(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """What the stage goes on with, and what it said."""
    said: list[str] = []
    monkeypatch.setattr(simulate, "_agree_on_a_worker", _Worker)
    monkeypatch.setattr(simulate, "result", lambda reference: reference)
    monkeypatch.setattr(simulate, "say", said.append)
    return simulate._agree(simulator, _OpenCalls()), said  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ChatSimulator, PromptLogprobs])
def test_a_server_that_does_not_answer_leaves_the_simulator_as_it_was(
    monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "nobody-looks-at-it")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    simulator = kind(client=NOBODY, prices=PRICES)
    agreed, said = agree(simulator, monkeypatch)
    assert agreed == simulator
    assert said == ["simulate   estimator: not known yet: the server did not answer"]


def test_what_was_found_out_is_told(monkeypatch: pytest.MonkeyPatch, provider: Loopback) -> None:
    client = replace(NOBODY, base_url=provider.base_url)
    agreed, said = agree(ChatSimulator(client=client, prices=PRICES), monkeypatch)
    assert said == ["simulate   estimator: expected"]
    assert agreed.estimator == "expected"
