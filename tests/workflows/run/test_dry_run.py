"""What a dry run says before anything is sent."""

from dataclasses import replace

from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.models.calls import ModelUse
from neuron_atlas.workflows.run.dry_run import Estimate, closing_lines, estimate_lines

LIMITED = ClientSettings(limits=LimitSettings(500, 800_000))
PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
ESTIMATE = Estimate(
    use=ModelUse("explain", "explain", LIMITED, PRICES),
    neurons=10_000,
    n_sampled=512,
    requests=9_800,
    answered=100,
    tokens_in=19_600_000,
    tokens_out=3_920_000,
    usd=88.2,
)


def with_use(**changes) -> Estimate:
    return replace(ESTIMATE, use=replace(ESTIMATE.use, **changes))


def test_an_estimate_has_requests_tokens_dollars_and_hours():
    assert estimate_lines(ESTIMATE) == [
        "dry run    10,000 neurons, estimated from 512 of them",
        "requests   9,800 to gpt-4o, and 100 more that are answered already",
        "tokens     19,600,000 in the prompts and 3,920,000 in the answers, at most",
        "dollars    88.20 at most (prices of 2026-04-05: 2.5 in, 10 out for a million tokens)",
        "hours      0.49 at the limits in explain.client.limits",
    ]


def test_an_estimate_of_meanings_counts_meanings():
    of_meanings = replace(ESTIMATE, neurons=6, n_sampled=6, unit="meanings")
    assert estimate_lines(of_meanings, "gpt4o")[0] == "dry run    gpt4o: 6 meanings"


def test_the_limits_that_it_names_are_those_of_the_stage():
    for client, words in ((LIMITED, "at the limits in"), (ClientSettings(), "unknown")):
        line = estimate_lines(with_use(stage="simulate", client=client))[4]
        assert words in line
        assert "simulate.client.limits" in line


def test_by_batch_it_costs_half_and_takes_a_day():
    lines = estimate_lines(with_use(mode="batch"))
    assert lines[3].startswith("dollars    44.10 at most")
    assert lines[4] == "hours      up to 24 for each batch, the provider's limit"


def test_without_limits_no_hours_are_made_up():
    assert "no limit a minute" in estimate_lines(with_use(client=ClientSettings()))[4]


def test_of_several_explainers_each_is_named_and_their_sum_follows():
    lines = estimate_lines(ESTIMATE, "masks")
    assert lines[0] == "dry run    masks: 10,000 neurons, estimated from 512 of them"
    second = replace(ESTIMATE, requests=200, usd=1.8)
    assert (
        closing_lines([ESTIMATE, None, second])[0]
        == "in all     10,000 requests, 90.00 dollars at most"
    )


def test_an_estimate_names_what_it_leaves_out():
    left_out, last = closing_lines([ESTIMATE])
    assert "second requests" in left_out
    assert last == "nothing was sent"
    assert closing_lines([None]) == ["nothing was sent"]
    assert closing_lines([]) == []
