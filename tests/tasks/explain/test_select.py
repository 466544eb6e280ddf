import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import NEURON_TYPES
from neuron_atlas.tasks.explain.select import NeuronChoice, select_neurons_to_explain

SHARES = {"visual": 0, "text": 1, "multi-modal": 2, "unknown": 3}


def types(*neurons: tuple[int, int, str, float, float]) -> pa.Table:
    """Rows of layer, neuron, type, share of that type, scale."""
    rows = []
    for layer, neuron, kind, share, scale in neurons:
        shares = [0.0] * 4
        shares[SHARES[kind]] = share
        named = dict(zip(("visual", "text", "multimodal", "unknown"), shares, strict=True))
        rows.append(
            {"layer": layer, "neuron": neuron, "type": kind, "scale": scale, "n_exemplars": 50}
            | {f"share_{name}": value for name, value in named.items()}
        )
    return pa.Table.from_pylist(rows, schema=NEURON_TYPES.schema)


TYPES = types(
    (1, 3, "visual", 0.9, 1.0),
    (1, 2, "visual", 0.9, 4.0),
    (1, 1, "visual", 0.6, 9.0),
    (1, 4, "text", 0.7, 1.0),
    (1, 5, "unknown", 1.0, 0.0),
    (2, 1, "visual", 0.5, 1.0),
    (2, 70_000, "multi-modal", 0.8, 1.0),
    (2, 6, "multi-modal", 0.8, 1.0),
    (2, 5, "multi-modal", 0.9, 1.0),
)


def chosen(**choice: object) -> list[tuple[int, int]]:
    table = select_neurons_to_explain(TYPES, NeuronChoice(**choice))  # type: ignore[arg-type]
    assert table.schema.equals(NEURON_TYPES.schema)
    return list(zip(table["layer"].to_pylist(), table["neuron"].to_pylist(), strict=True))


def test_by_default_all_but_the_unknown_are_chosen_by_layer_and_neuron():
    assert chosen() == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 5), (2, 6), (2, 70_000)]


def test_only_the_types_asked_for_are_chosen():
    assert chosen(types=("unknown",)) == [(1, 5)]
    assert chosen(types=("text", "multi-modal")) == [(1, 4), (2, 5), (2, 6), (2, 70_000)]


def test_of_each_layer_and_type_the_purest_then_the_strongest_then_the_first_are_chosen():
    assert chosen(per_layer_and_type=1) == [(1, 2), (1, 4), (2, 1), (2, 5)]
    assert chosen(per_layer_and_type=2) == [(1, 2), (1, 3), (1, 4), (2, 1), (2, 5), (2, 6)]


def test_a_count_takes_the_best_of_every_layer_and_type_before_any_second():
    assert chosen(count=4) == [(1, 2), (1, 4), (2, 1), (2, 5)]
    assert chosen(count=5) == [(1, 2), (1, 3), (1, 4), (2, 1), (2, 5)]
    assert chosen(count=100) == chosen()
    assert chosen(count=3, types=("visual",)) == [(1, 2), (1, 3), (2, 1)]


def test_both_limits_hold_at_once():
    assert chosen(count=3, per_layer_and_type=1, types=("visual",)) == [(1, 2), (2, 1)]


def test_a_list_names_neurons_whatever_their_type_and_the_limits():
    names = ("2:70000", "1:5", "1:1", "1:5")
    assert chosen(only=names, types=("text",), count=1) == [(1, 1), (1, 5), (2, 70_000)]


@pytest.mark.parametrize("name", ["2:3", "9:1", "1:99999999999", "40000:1"])
def test_a_listed_neuron_that_was_not_captured_is_an_error_that_names_it(name):
    with pytest.raises(ValueError, match=f"^only: neuron {name} was not captured"):
        chosen(only=("1:1", name))


def test_the_rows_are_those_of_the_types():
    table = select_neurons_to_explain(TYPES, NeuronChoice(only=("1:4",)))
    assert table.to_pylist() == [TYPES.to_pylist()[3]]


def test_no_neuron_of_a_type_is_an_empty_table():
    table = select_neurons_to_explain(types((1, 5, "unknown", 1.0, 0.0)), NeuronChoice(count=3))
    assert len(table) == 0
    assert table.schema.equals(NEURON_TYPES.schema)


def test_a_wrong_neuron_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^only: '3-417' is not layer:neuron, such as 3:417"):
        NeuronChoice(only=("3-417",))
