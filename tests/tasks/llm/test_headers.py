import pytest

from tasks.llm.headers import Hint, duration_s, processing_s, read_hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("1.5s", 1.5), ("120ms", 0.12), ("1h2m3s", 3723), ("17", 17)],
)
def test_durations_are_read_as_providers_write_them(text, seconds):
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-3", "6 m", "nan"])
def test_what_is_no_duration_is_none(text):
    assert duration_s(text) is None


def test_limits_are_read_from_the_headers():
    hint = read_hint(
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "28000",
        }
    )
    assert hint == Hint(500, 499, 0.12, 30000, 28000, None)


def test_limits_that_make_no_sense_are_not_taken_for_any():
    assert read_hint({}) is None
    azure = {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "0"}
    assert read_hint(azure) is None


def test_the_time_that_the_provider_worked_is_read():
    assert processing_s({"openai-processing-ms": "1500"}) == 1.5
    assert processing_s({"x-envoy-upstream-service-time": "20"}) == 0.02
    assert processing_s({}) is None
