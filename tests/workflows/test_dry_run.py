from tasks.llm.prices import Price
from tasks.llm.settings import ClientSettings, LimitSettings
from workflows.dry_run import Estimate, told

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
    assert told(ESTIMATE, CLIENT, PRICE, is_batch=False) == [
        "dry run    10,000 neurons, judging by 512 of them",
        "requests   9,800 to gpt-4o, and 100 more that are answered already",
        "tokens     19,600,000 in the prompts and 3,920,000 in the answers, at most",
        "dollars    88.20 at most (prices of 2026-04-05: 2.5 in, 10 out for a million tokens)",
        "hours      0.49 at the limits in explain.client.limits",
        "nothing was sent",
    ]


def test_by_batch_it_costs_half_and_takes_a_day():
    lines = told(ESTIMATE, CLIENT, PRICE, is_batch=True)
    assert lines[3].startswith("dollars    44.10 at most")
    assert lines[4] == "hours      up to 24 for each batch, as the provider says"


def test_without_limits_no_hours_are_made_up():
    lines = told(ESTIMATE, ClientSettings(), PRICE, is_batch=False)
    assert "no limit a minute" in lines[4]
