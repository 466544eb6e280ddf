import pytest

from neuron_atlas.tasks.report.wording import (
    MISSING,
    difference,
    percent,
    scale_position,
    signed,
    three_digits,
)

SPACE = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, MISSING), (0.617, "0.62"), (-0.04, "−0.04"), (-0.001, "0.00"), (1, "1.00")],  # noqa: RUF001
)
def test_signed(value, words):
    assert signed(value) == words


def test_a_difference_above_zero_has_its_plus_sign():
    assert [difference(value) for value in (0.5, 0.001, -0.5)] == ["+0.50", "0.00", "−0.50"]  # noqa: RUF001


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, MISSING), (0.0, "0_%"), (0.001, "<1_%"), (0.126, "13_%"), (1, "100_%")],
)
def test_percent(share, words):
    assert percent(share) == words.replace("_", SPACE)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.12345, "0.123"), (4.6, "4.60"), (123.4, "123"), (1234.5, "1,234"), (-2.0, "−2.00")],  # noqa: RUF001
)
def test_activations_have_three_digits(value, words):
    assert three_digits(value) == words


def test_places_on_the_scale_stay_on_it():
    assert [scale_position(value) for value in (-1, 0, 0.5, 1, 1.2)] == [0, 100, 150, 200, 200]
