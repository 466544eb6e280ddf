import copy

import pytest

from bench.explain import missed_targets

GOOD = {
    "neuron-atlas": {"achieved_over_permitted": 0.97, "turned_down": 0},
    "queue": {"neurons": 20_000, "answered": 20_000, "peak_memory_mb": 999},
}


@pytest.mark.parametrize(
    ("part", "name", "value", "told"),
    [
        ("neuron-atlas", "achieved_over_permitted", 0.969, "0.969 of the permitted rate"),
        ("neuron-atlas", "turned_down", 1, "1 calls rejected"),
        ("queue", "answered", 19_999, "19,999 of 20,000"),
        ("queue", "peak_memory_mb", 1000, "1,000 MB"),
    ],
)
def test_a_target_that_is_missed_is_told(part, name, value, told):
    assert missed_targets(GOOD) == []
    found = copy.deepcopy(GOOD)
    found[part][name] = value
    (line,) = missed_targets(found)
    assert line.startswith(told)


def test_half_of_the_bench_has_half_of_the_targets():
    assert missed_targets({"limits": {}}) == []
