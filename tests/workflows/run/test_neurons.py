"""Chosen neurons are cut into work items that a resumed run finds again."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts import NEURON_TYPES
from neuron_atlas.workflows.run.neurons import split_into_parts


def types(*neurons: tuple[int, int]) -> pa.Table:
    rows = [
        {"layer": layer, "neuron": neuron, "type": "visual", "n_exemplars": 3, "scale": 1.0}
        for layer, neuron in neurons
    ]
    return pa.Table.from_pylist(rows, schema=NEURON_TYPES.schema)


def cut(size: int, *neurons: tuple[int, int]) -> list[tuple[int, tuple[int, ...]]]:
    return [(part.layer, part.neurons) for part in split_into_parts(types(*neurons), size)]


def test_every_neuron_is_in_one_part_of_its_own_layer():
    assert cut(2, (0, 1), (0, 4), (0, 9), (2, 3), (2, 4)) == [
        (0, (1, 4)),
        (0, (9,)),
        (2, (3, 4)),
    ]


def test_a_part_carries_the_types_of_its_neurons():
    for part in split_into_parts(types((0, 1), (0, 4), (2, 3)), 1):
        assert part.types["layer"].to_pylist() == [part.layer] * len(part.neurons)
        assert tuple(part.types["neuron"].to_pylist()) == part.neurons


def test_no_neurons_make_no_parts():
    assert cut(5) == []


def test_a_parts_file_is_named_by_its_neurons_so_other_cuts_do_not_take_it_for_theirs():
    (whole,) = split_into_parts(types((0, 1), (0, 4), (0, 9)), 3)
    (again,) = split_into_parts(types((0, 1), (0, 4), (0, 9)), 9)
    (other,) = split_into_parts(types((0, 1), (0, 5), (0, 9)), 3)
    first, _ = split_into_parts(types((0, 1), (0, 4), (0, 9)), 2)
    (elsewhere,) = split_into_parts(types((1, 1), (1, 4), (1, 9)), 3)
    assert whole.file("scores") == again.file("scores")
    names = {part.file("scores") for part in (whole, other, first, elsewhere)}
    assert len(names) == 4
    assert whole.file("scores") != whole.file("simulations")
