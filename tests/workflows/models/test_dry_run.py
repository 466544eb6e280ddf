from contextlib import contextmanager

from neuron_atlas.tasks.artifacts import EXPLANATIONS
from neuron_atlas.tasks.explain.chat import Chat
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.models import dry_run as dry
from neuron_atlas.workflows.models.asking import Asking
from neuron_atlas.workflows.models.dry_run import Estimate, closing, told
from neuron_atlas.workflows.run.stage import Context
from neuron_atlas.workflows.run.store import Store
from tests.workflows.runs import settings

ESTIMATE = Estimate(
    neurons=10_000,
    looked_at=512,
    requests=9_800,
    answered=100,
    tokens_in=19_600_000,
    tokens_out=3_920_000,
    usd=88.2,
)
PRICE = Price(input=2.5, output=10.0, date="2026-04-05")
CLIENT = ClientSettings(limits=LimitSettings(500, 800_000))


def test_an_estimate_tells_requests_tokens_dollars_and_hours():
    assert told(ESTIMATE, "explain", CLIENT, PRICE, is_batch=False) == [
        "dry run    10,000 neurons, judging by 512 of them",
        "requests   9,800 to gpt-4o, and 100 more that are answered already",
        "tokens     19,600,000 in the prompts and 3,920,000 in the answers, at most",
        "dollars    88.20 at most (prices of 2026-04-05: 2.5 in, 10 out for a million tokens)",
        "hours      0.49 at the limits in explain.client.limits",
    ]


def test_the_limits_that_it_names_are_those_of_the_stage():
    for client, words in ((CLIENT, "at the limits in"), (ClientSettings(), "as many as it takes")):
        line = told(ESTIMATE, "simulate", client, PRICE, is_batch=False)[4]
        assert words in line
        assert "simulate.client.limits" in line


def test_by_batch_it_costs_half_and_takes_a_day():
    lines = told(ESTIMATE, "explain", CLIENT, PRICE, is_batch=True)
    assert lines[3].startswith("dollars    44.10 at most")
    assert lines[4] == "hours      up to 24 for each batch, as the provider says"


def test_without_limits_no_hours_are_made_up():
    lines = told(ESTIMATE, "explain", ClientSettings(), PRICE, is_batch=False)
    assert "no limit a minute" in lines[4]


def test_of_several_explainers_each_is_named_and_their_sum_is_told():
    lines = told(ESTIMATE, "explain", CLIENT, PRICE, is_batch=False, apart="masks")
    assert lines[0] == "dry run    masks: 10,000 neurons, judging by 512 of them"
    assert (
        closing([(9_800, 88.2), (200, 1.8)])[0]
        == "in all     10,000 requests, 90.00 dollars at most"
    )


def test_it_is_said_what_an_estimate_leaves_out():
    (beside, last) = closing([(9_800, 88.2)])
    assert "second questions" in beside
    assert last == "nothing was sent"
    assert closing([]) == ["nothing was sent"]


def asked_of(context: Context) -> Asking:
    one = context.settings.explain
    return Asking("explain", EXPLANATIONS, one.explainer, one, None, 2, None)


def test_a_dry_run_of_several_tells_of_each_and_of_all(monkeypatch, tmp_path, capsys):
    context = Context(
        settings("explain=[gpt4o,dissect,masks:gpt4o]", "explain.dry_run=true"),
        Store(tmp_path),
        None,
        lambda: None,
    )

    @contextmanager
    def opened(explainer, *_):
        asks = isinstance(explainer, Chat)
        yield explainer if asks else None

    monkeypatch.setattr(dry, "open_calls", opened)
    monkeypatch.setattr(dry, "_estimate", lambda context, asking, calls: ESTIMATE)
    dry.dry_run(context, asked_of)
    told_lines = capsys.readouterr().err.splitlines()
    assert [line for line in told_lines if line.startswith(("dry", "in all", "nothing"))] == [
        "dry run    gpt4o: 10,000 neurons, judging by 512 of them",
        "dry run    dissect asks no model",
        "dry run    masks: 10,000 neurons, judging by 512 of them",
        "in all     19,600 requests, 176.40 dollars at most",
        "nothing was sent",
    ]
