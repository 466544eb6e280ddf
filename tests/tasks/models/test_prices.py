import pytest

from neuron_atlas.tasks.models.prices import ANY_MODEL, Price, check_price, cost, price_of


def test_a_call_costs_its_tokens_at_the_price_per_million():
    prices = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-01")}
    assert cost(prices, "gpt-4o", 1_000_000, 100_000) == pytest.approx(3.5)


def test_a_model_without_a_price_has_an_unknown_cost_not_a_cost_of_zero():
    assert cost({}, "gpt-4o", 1000, 1000) is None


def test_a_price_for_any_model_is_that_of_those_that_are_not_named():
    named, any_other = Price(2.5, 10.0, "2026-04-01"), Price(0.0, 0.0, "2026-04-01")
    prices = {"gpt-4o": named, ANY_MODEL: any_other}
    assert price_of(prices, "gpt-4o") is named
    assert price_of(prices, "my-own") is any_other
    assert cost(prices, "my-own", 1000, 1000) == 0
    check_price(prices, "my-own", "simulate.prices")
