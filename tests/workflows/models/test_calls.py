"""What a stage that asks a model opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.models import calls as calls_module
from neuron_atlas.workflows.models.calls import ModelUse, OpenCalls, open_calls
from neuron_atlas.workflows.run.errors import ConfigError


class Account:
    """Stands in for the account on the cluster."""

    def __init__(self) -> None:
        self.times = 0

    def share_limits(self) -> LimitSettings:
        self.times += 1
        return LimitSettings(requests_per_minute=60)


def test_the_limits_of_an_account_change_only_for_those_who_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account = Account()
    client = ClientSettings(limits=LimitSettings(requests_per_minute=500))
    use = ModelUse("explain", "explain", client, {})
    calls = OpenCalls(use, account)  # type: ignore[arg-type]
    calls.batch_calls(tmp_path / "requests.jsonl")
    assert account.times == 0
    calls.live_calls()
    assert account.times == 1
    assert "500 requests a minute, 512 at once; before, 60 requests" in capsys.readouterr().err


def test_what_calls_report_is_printed_once_with_the_stage(capsys):
    use = ModelUse("explain", "explain", ClientSettings(), {})
    tally = Tally(notices=["waits 3,600 s, until 12:00:00: HTTP 429"])
    calls = OpenCalls(use, SimpleNamespace(tally=lambda: tally))  # type: ignore[arg-type]
    calls.tally()
    tally.notices.append("another")
    assert calls.tally() is tally
    said = capsys.readouterr().err.splitlines()
    assert said == ["explain    waits 3,600 s, until 12:00:00: HTTP 429", "explain    another"]


def test_only_batches_to_its_own_model_keep_a_live_run_from_calling(monkeypatch, tmp_path):
    @contextmanager
    def account(path: Path, stage: str, budget: Any, client: Any, prices: Any) -> Iterator[Any]:
        n_batches = 2 if client.model == "gpt-4o" else 0
        yield SimpleNamespace(n_batches=lambda: n_batches, tally=Tally)

    monkeypatch.setattr(calls_module, "open_account", account)
    mine, other = (
        ModelUse("explain", "explain", ClientSettings(model=model), {})
        for model in ("gpt-4o", "another")
    )
    with (
        pytest.raises(ConfigError, match="2 batches of an earlier run have not been fetched"),
        open_calls(mine, tmp_path),
    ):
        pass
    with open_calls(other, tmp_path) as opened:
        assert opened.use == other
