import time
from collections import Counter, deque

import pytest

from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.workflows.atlas import stages_of
from neuron_atlas.workflows.models import spending
from neuron_atlas.workflows.models.spending import show_spending, spending_note
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import Store
from neuron_atlas.workflows.tracking.metrics import spending_metrics, valid_name
from tests.workflows.runs import settings

TALLY = Tally(
    budget_usd=50.0,
    spent_usd=12.345,
    run_usd=2.0,
    requests=1234,
    lost=2,
    outcomes=Counter({"ok": 3, "rate_limited/HTTP 429": 1, 'failed/é"': 1}),
    latencies_s=deque([1.25]),
)


class Bar:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_bar_tells_what_was_spent_of_the_budget():
    note = spending_note(TALLY)
    assert note == "$12.35 of $50.00, 1,234 calls, 1.2 s each, 2 without a result"
    assert spending_note(Tally()) == "$0.00, 0 calls"


def test_the_tally_is_logged_under_names_that_mlflow_takes():
    metrics = spending_metrics("explain", TALLY)
    assert metrics["explain/usd"] == 2.0
    assert metrics["explain/usd_of_all_runs"] == 12.345
    assert metrics["explain/calls/rate_limited/HTTP 429"] == 1
    assert {valid_name(name) for name in metrics} >= {"explain/calls/failed/  "}
    assert metrics["explain/latency_p90_s"] == 1.25
    assert "explain/latency_p90_s" not in spending_metrics("explain", Tally())


def test_it_is_logged_once_more_where_the_stage_fails():
    logged = []
    with (
        pytest.raises(RuntimeError, match="it broke"),
        show_spending(Bar(), lambda: TALLY, lambda metrics, step: logged.append(metrics), "x"),
    ):
        raise RuntimeError("it broke")
    assert [metrics["x/usd"] for metrics in logged] == [2.0]


def test_a_journal_that_is_gone_does_not_hide_why_the_stage_failed():
    def gone() -> Tally:
        raise ConnectionError

    with (
        pytest.raises(RuntimeError, match="it broke"),
        show_spending(Bar(), gone, lambda metrics, step: None, "x"),
    ):
        raise RuntimeError("it broke")


def test_what_each_of_several_explainers_spends_is_logged_apart(tmp_path):
    def titles(*overrides: str) -> list[str]:
        given = settings(*overrides)
        context = Context(given, Store(tmp_path))
        stages = [stage for stage in stages_of(given) if stage.name == "explain"]
        uses = [stage.steps[-1].needs(context).model for stage in stages]
        return [use.title for use in uses if use is not None]

    assert titles("explain=gpt4o") == ["explain"]
    assert titles("explain=[gpt4o,masks:gpt4o]") == ["explain/gpt4o", "explain/masks"]
    assert "explain/masks/usd" in spending_metrics("explain/masks", TALLY)


def test_it_is_shown_and_logged_while_the_stage_runs_and_at_its_end(monkeypatch):
    monkeypatch.setattr(spending, "_SHOW_EVERY_S", 0.01)
    monkeypatch.setattr(spending, "_LOG_EVERY_S", 0.02)
    bar, logged = Bar(), []
    with show_spending(bar, lambda: TALLY, lambda metrics, step: logged.append(metrics), "x"):
        deadline = time.monotonic() + 10
        while len(logged) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(logged) >= 2
        assert bar.notes
        before = len(logged)
    assert len(logged) > before
