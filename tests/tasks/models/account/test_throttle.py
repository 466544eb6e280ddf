"""The arithmetic of limits, against a provider that enforces a sliding minute, in made-up time."""

import heapq
import random

import pytest

from neuron_atlas.tasks.models.account.messages import LEASE_S, Usage
from neuron_atlas.tasks.models.account.throttle import Throttle
from neuron_atlas.tasks.models.headers import RateLimitHint
from neuron_atlas.tasks.models.settings import LimitSettings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def throttle(
    requests: int | None = None, tokens: int | None = None, concurrency: int = 1000
) -> tuple[Throttle, Clock]:
    clock = Clock()
    settings = LimitSettings(requests, tokens, concurrency)
    return Throttle(settings, clock), clock


def busiest_minute(arrivals: list[tuple[float, int]]) -> tuple[int, int]:
    """The most requests, and the most tokens, that lay within any 60 s."""
    most_requests = most_tokens = first = tokens = 0
    for last, (at, amount) in enumerate(arrivals):
        tokens += amount
        while arrivals[first][0] <= at - 60:
            tokens -= arrivals[first][1]
            first += 1
        most_requests = max(most_requests, last - first + 1)
        most_tokens = max(most_tokens, tokens)
    return most_requests, most_tokens


def drive(
    requests: int | None, tokens: int | None, seconds: float, *, need: int, used: int, seed: int
) -> list[tuple[float, int]]:
    """Ask without end for so long, over a network that delays; when the calls arrived."""
    limits, clock = throttle(requests, tokens)
    draw = random.Random(seed)
    end = clock.now + seconds
    arrivals: list[tuple[float, int]] = []
    under_way: list[tuple[float, int, float]] = []
    while clock.now < end:
        while under_way and under_way[0][0] <= clock.now:
            _, permit, arrived = heapq.heappop(under_way)
            limits.settle(permit, Usage(tokens=used, age_s=clock.now - arrived))
        permit = limits.grant("me", need)
        if permit is not None:
            arrived = clock.now + draw.choice([0.001, 0.02, 0.3, 1.5])
            arrivals.append((arrived, used))
            heapq.heappush(under_way, (arrived + draw.uniform(0.5, 8), permit, arrived))
            continue
        ready = limits.wait_s(need)
        ended = under_way[0][0] - clock.now if under_way else ready
        clock.now += max(min(ready, ended, 0.25), 1e-4)
        if draw.random() < 0.001:
            clock.now += 3  # The machine has something else to do.
    return sorted(arrivals)


@pytest.mark.parametrize("seed", range(3))
def test_no_sliding_minute_holds_more_requests_than_are_permitted_and_few_less(seed):
    arrivals = drive(3000, None, 300, need=1, used=1, seed=seed)
    assert busiest_minute(arrivals)[0] <= 3000
    steady = [at for at, _ in arrivals if 1120 <= at < 1300]
    assert len(steady) / (3 * 3000) >= 0.97


@pytest.mark.parametrize("seed", range(3))
def test_no_sliding_minute_holds_more_tokens_than_are_permitted_and_few_less(seed):
    arrivals = drive(None, 200_000, 300, need=1400, used=1150, seed=seed)
    assert busiest_minute(arrivals)[1] <= 200_000
    steady = sum(tokens for at, tokens in arrivals if 1120 <= at < 1300)
    assert steady / (3 * 200_000) >= 0.95


def test_permits_are_paced_and_what_was_missed_is_made_up_for_only_so_far():
    limits, clock = throttle(requests=60)
    assert limits.grant("me", 1)
    assert limits.grant("me", 1) is None
    clock.now += 30
    granted = 0
    while limits.grant("me", 1):
        granted += 1
    assert 5 <= granted <= 7


def test_at_most_so_many_calls_are_under_way():
    limits, _ = throttle(concurrency=2)
    first = limits.grant("me", 1)
    assert first
    assert limits.grant("me", 1)
    assert limits.grant("me", 1) is None
    limits.settle(first, Usage())
    assert limits.grant("me", 1)


def test_a_permit_that_was_not_used_costs_nothing():
    limits, _ = throttle(requests=1)
    permit = limits.grant("me", 1)
    assert permit
    assert limits.grant("me", 1) is None
    limits.settle(permit, Usage(sent=False))
    assert limits.grant("me", 1)


def test_a_call_is_charged_for_a_minute_from_when_it_reached_the_provider():
    limits, clock = throttle(requests=1)
    permit = limits.grant("me", 1)
    assert permit
    clock.now += 10
    limits.settle(permit, Usage(age_s=8))
    clock.now += 51.9
    assert limits.grant("me", 1) is None
    clock.now += 0.2
    assert limits.grant("me", 1)


def test_a_call_that_is_larger_than_the_limit_is_let_through_alone():
    limits, _ = throttle(tokens=1000)
    assert limits.grant("me", 5000)
    assert limits.grant("me", 1) is None


def test_a_call_that_is_turned_down_stops_all_and_then_slows_them():
    limits, clock = throttle(requests=600)
    mine = limits.grant("me", 1)
    clock.now += 1
    theirs = limits.grant("they", 1)
    assert mine
    assert theirs
    limits.settle(mine, Usage(pause_s=4))
    # They were on their way together: one event.
    limits.settle(theirs, Usage(pause_s=2))
    clock.now += 3.9
    assert limits.grant("they", 1) is None
    assert limits.pace == pytest.approx(0.7 + 3.9 / 60)
    clock.now += 0.2
    assert limits.grant("they", 1)
    clock.now += 60
    assert limits.pace == 1


def test_the_permits_of_the_dead_lapse_and_count_as_used():
    limits, clock = throttle(requests=2, concurrency=1)
    assert limits.grant("dead", 1)
    clock.now += LEASE_S - 1
    assert limits.expire() == 0
    clock.now += 30
    assert limits.expire() == 1
    assert limits.grant("alive", 1)
    assert limits.grant("alive", 1) is None


def test_a_lower_limit_that_the_provider_tells_is_obeyed():
    limits, clock = throttle(requests=None)
    permit = limits.grant("me", 1)
    assert permit
    limits.settle(permit, Usage(hint=RateLimitHint(limit_requests=2, remaining_requests=1)))
    clock.now += 59
    assert limits.grant("me", 1)
    assert limits.grant("me", 1) is None


def test_what_others_use_of_the_account_is_left_to_them():
    limits, clock = throttle(requests=100)
    permit = limits.grant("me", 1)
    assert permit
    # One of ours, and 89 of somebody else.
    limits.settle(permit, Usage(hint=RateLimitHint(limit_requests=100, remaining_requests=10)))
    granted = 0
    for _ in range(200):
        clock.now += 0.2
        granted += limits.grant("me", 1) is not None
    assert granted == 10


def test_limits_can_be_changed_while_calls_are_under_way():
    limits, clock = throttle(requests=1)
    assert limits.grant("me", 1)
    limits.set_limits(LimitSettings(requests_per_minute=3))
    clock.now += 60
    assert limits.grant("me", 1)
    clock.now += 20
    assert limits.grant("me", 1)


def test_programs_are_served_in_turn():
    limits, clock = throttle(requests=60)
    limits.exchange_permits("a", [], [1])
    clock.now += 60  # A burst of five, then one a second.
    served = ""
    for _ in range(400):
        clock.now += 0.05
        for program in "ab":
            permits, _ = limits.exchange_permits(program, [], [1])
            served += program * len(permits)
    assert abs(served.count("a") - served.count("b")) <= 1
    assert len(served) >= 20


def test_a_program_with_a_large_call_is_not_starved_by_one_with_small_ones():
    limits, clock = throttle(tokens=6_000)
    limits.exchange_permits("small", [], [6_000])
    clock.now += 59
    for _ in range(4_000):
        clock.now += 0.05
        if limits.exchange_permits("large", [], [5_000])[0]:
            return
        limits.exchange_permits("small", [], [50])
    raise AssertionError("the large call never went out")


def test_a_program_that_ends_while_it_waits_holds_up_no_other():
    limits, clock = throttle(requests=60)
    limits.exchange_permits("a", [], [1])
    assert limits.exchange_permits("gone", [], [1])[0] == []
    clock.now += 2
    assert limits.exchange_permits("a", [], [1])[0]
