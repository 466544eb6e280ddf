"""What a stage that asks a model opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.models.calls import OpenCalls


class Agreed:
    """In the place of the limits on the cluster."""

    def __init__(self) -> None:
        self.times = 0

    def agree(self) -> LimitSettings:
        self.times += 1
        return LimitSettings(requests_per_minute=60)


def test_the_limits_of_an_account_change_only_for_those_who_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = Agreed()
    client = ClientSettings(limits=LimitSettings(requests_per_minute=500))
    calls = OpenCalls("explain", "explain", client, {}, None, limits, tmp_path)  # type: ignore[arg-type]
    calls.collecting(tmp_path / "requests.jsonl")
    assert limits.times == 0
    calls.live()
    assert limits.times == 1
    assert "500 requests a minute, 512 at once; before, 60 requests" in capsys.readouterr().err
