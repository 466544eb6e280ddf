from neuron_atlas.tasks.artifacts import EXPLANATIONS, SCORES
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from tests.tasks.report.synthetic import every_type, explanations, neuron_types, scores

NONE_EXPLAINED = EXPLANATIONS.schema.empty_table()
NONE_SCORED = SCORES.schema.empty_table()


def visual(*rows):
    return neuron_types(*({"layer": 0, "type": "visual"} | row for row in rows))


def test_types_come_in_their_order_with_at_most_the_asked_number():
    chosen = select_strongest_neurons(
        every_type(per_type=3, layers=2), NONE_EXPLAINED, NONE_SCORED, 2
    )
    assert [name for _, _, name in chosen] == [
        name for name in ("visual", "text", "multi-modal", "unknown") for _ in range(2)
    ]
    assert chosen[0] == (0, 0, "visual")


def test_scored_neurons_come_first_by_their_best_correlation():
    types = visual({"neuron": 0}, {"neuron": 1}, {"neuron": 2}, {"neuron": 3})
    table = scores(
        {"layer": 0, "neuron": 1, "correlation": 0.3},
        {"layer": 0, "neuron": 2, "correlation": 0.1},
        {"layer": 0, "neuron": 2, "correlation": 0.8, "explainer": "gpt4o"},
        {"layer": 0, "neuron": 3, "correlation": -0.5},
    )
    assert [n for _, n, _ in select_strongest_neurons(types, NONE_EXPLAINED, table)] == [2, 1, 3, 0]


def test_a_correlation_counts_without_a_control_but_not_as_nan():
    types = visual({"neuron": 0}, {"neuron": 1}, {"neuron": 2})
    table = scores(
        {"layer": 0, "neuron": 1, "correlation": 0.9, "status": "no_control"},
        {"layer": 0, "neuron": 2, "correlation": float("nan")},
        {"layer": 0, "neuron": 0, "correlation": 0.1},
    )
    assert [n for _, n, _ in select_strongest_neurons(types, NONE_EXPLAINED, table)] == [1, 0, 2]


def test_without_scores_the_explained_come_first_then_the_purest():
    types = visual(
        {"neuron": 0, "shares": (0.5, 0.5, 0.0, 0.0)},
        {"neuron": 1, "shares": (0.9, 0.1, 0.0, 0.0)},
        {"neuron": 2, "shares": (0.9, 0.1, 0.0, 0.0)},
        {"neuron": 3, "shares": (0.4, 0.3, 0.3, 0.0)},
        {"neuron": 4, "shares": (1.0, 0.0, 0.0, 0.0)},
    )
    said = explanations(
        {"layer": 0, "neuron": 3}, {"layer": 0, "neuron": 0, "status": "refused", "text": ""}
    )
    assert [n for _, n, _ in select_strongest_neurons(types, said, NONE_SCORED)] == [3, 4, 1, 2, 0]


def test_a_neuron_is_matched_by_its_layer_too():
    types = neuron_types(
        {"layer": 0, "neuron": 5, "type": "text"}, {"layer": 1, "neuron": 5, "type": "text"}
    )
    table = scores({"layer": 1, "neuron": 5, "correlation": 0.4, "type": "text"})
    assert select_strongest_neurons(types, NONE_EXPLAINED, table) == [
        (1, 5, "text"),
        (0, 5, "text"),
    ]


def test_neurons_without_exemplars_are_left_out():
    types = visual({"neuron": 0, "n_exemplars": 0, "scale": float("nan")}, {"neuron": 1})
    assert select_strongest_neurons(types, NONE_EXPLAINED, NONE_SCORED) == [(0, 1, "visual")]


def test_no_neurons_no_choice():
    assert select_strongest_neurons(neuron_types(), NONE_EXPLAINED, NONE_SCORED) == []
