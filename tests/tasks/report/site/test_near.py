"""The nearest neurons on a neuron's page."""

from __future__ import annotations

from neuron_atlas.tasks.report.site.near import near_neurons


def test_the_nearest_neurons_of_each_role_are_shown_and_no_more_than_five():
    one = {"role": "visual", "layers": [1, 2], "neurons": [7, 8], "cosines": [0.91234, 0.5]}
    many = {"role": "text", "layers": [0] * 9, "neurons": list(range(9)), "cosines": [0.25] * 9}
    assert near_neurons([one, many]) == {
        "visual": [[1, 7, 0.912], [2, 8, 0.5]],
        "text": [[0, neuron, 0.25] for neuron in range(5)],
    }
    assert near_neurons([]) == {}
