"""vLLM's Python is found, or its absence is reported before any stage runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.failures import ProviderError
from tests.workflows.runs import settings

VLLM = ("explain=dissect", "simulate=vllm")


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_PYTHON", str(tmp_path / "python"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_vllm_is_in_the_checkout_or_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_PYTHON", raising=False)
    assert settings(*VLLM).simulate.servers.command_line[0].endswith("/.venv-vllm/bin/python")
    monkeypatch.setenv("VLLM_PYTHON", sys.executable)
    found = settings(*VLLM)
    assert found.simulate.servers.command_line[0] == sys.executable
    found.check()


def test_a_run_without_vllm_fails_before_its_stages(without_vllm: None, tmp_path: Path) -> None:
    with pytest.raises(ProviderError) as raised:
        settings(*VLLM).check()
    message = str(raised.value)
    assert message.startswith(f"simulate.servers.command: there is no {tmp_path}/python. ")
    assert "VLLM_PYTHON" in message


@pytest.mark.parametrize(
    "elsewhere",
    [
        "simulate.base_urls=['http://gpu-1:8000/v1']",
        "cluster.address=gpu-1:6379",
        "simulate.dry_run=true",
    ],
)
def test_a_run_that_needs_no_vllm_here_does_not_look_for_it(
    without_vllm: None, elsewhere: str
) -> None:
    settings(*VLLM, elsewhere).check()
