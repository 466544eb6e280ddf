"""What the simulate stage finds out about a server before its parts begin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.simulate.chat import ChatSimulator
from neuron_atlas.tasks.simulate.prompt_logprobs import PromptLogprobs
from neuron_atlas.tasks.simulate.simulator import Simulator
from neuron_atlas.workflows.run.simulator import read_capabilities
from neuron_atlas.workflows.run.stage import Worker
from neuron_atlas.workflows.stages import simulate
from tests.loopback.fixture import Loopback

PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
NOBODY = ClientSettings(base_url="http://127.0.0.1:1/v1", max_attempts=1)


def probe(simulator: Simulator, folder: Path) -> list[str]:
    """Probe as a work item; returns the lines for the user."""
    return simulate._probe(Worker(folder, calls=CallOptions()), simulator)


@pytest.mark.parametrize("kind", [ChatSimulator, PromptLogprobs])
def test_a_server_that_does_not_answer_leaves_the_probe_to_each_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "nobody-looks-at-it")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    lines = probe(kind(client=NOBODY, prices=PRICES), tmp_path)
    assert lines == ["simulate   estimator: not known yet: the server did not answer"]
    assert list(tmp_path.iterdir()) == []
    assert read_capabilities(tmp_path) is None


def test_every_part_gets_what_the_probe_found(tmp_path: Path, provider: Loopback) -> None:
    simulator = ChatSimulator(client=replace(NOBODY, base_url=provider.base_url), prices=PRICES)
    assert probe(simulator, tmp_path) == ["simulate   estimator: expected"]
    written = json.loads((tmp_path / "capabilities.json").read_text())
    assert written["details"] == {"estimator": "expected", "top_logprobs": 20, "top": 10}
    assert read_capabilities(tmp_path) == simulator.probe(CallOptions())
