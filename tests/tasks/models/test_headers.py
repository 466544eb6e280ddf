from neuron_atlas.tasks.models.headers import RateLimitHint, processing_s, read_hint


def test_limits_are_read_from_the_headers():
    hint = read_hint(
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "28000",
        }
    )
    assert hint == RateLimitHint(500, 499, 30000, 28000)


def test_limits_that_make_no_sense_are_not_taken_for_any():
    assert read_hint({}) is None
    azure = {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "0"}
    assert read_hint(azure) is None


def test_the_time_that_the_provider_worked_is_read():
    assert processing_s({"openai-processing-ms": "1500"}) == 1.5
    assert processing_s({"x-envoy-upstream-service-time": "20"}) == 0.02
    assert processing_s({}) is None
