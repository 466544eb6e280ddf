from collections import Counter

import pytest

from neuron_atlas.tasks.simulate.control import ExplainedNeuron, other_neurons

WORDS = ("red", "blue", "green", "circle")
CROWD = [
    ExplainedNeuron(
        layer, neuron, kind, f'Shows "{WORDS[neuron % 4]}" (r = 0.{neuron} over 9 samples).'
    )
    for layer in (1, 2)
    for kind, first in (("visual", 0), ("text", 20))
    for neuron in range(first, first + 12)
]


def key(neuron: ExplainedNeuron) -> tuple[int, int]:
    return neuron.layer, neuron.neuron


def claim(neuron: ExplainedNeuron) -> str:
    return neuron.text.split(" (r")[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_control_is_of_the_same_layer_and_type_and_says_something_else(seed):
    chosen = other_neurons(CROWD, seed)
    assert set(chosen) == set(map(key, CROWD))
    for neuron in CROWD:
        other = chosen[key(neuron)]
        assert (other.layer, other.type) == (neuron.layer, neuron.type)
        assert claim(other) != claim(neuron)


def test_claims_that_differ_in_their_figures_alone_are_the_same():
    twins = [
        ExplainedNeuron(1, n, "visual", f'Shows "red" (r = 0.{n} over 9 samples).') for n in (5, 6)
    ]
    assert other_neurons(twins, 0) == {}


def test_without_one_in_its_layer_a_neuron_of_the_same_type_is_taken():
    here = ExplainedNeuron(1, 1, "visual", "red")
    others = [ExplainedNeuron(2, 1, "visual", "blue"), ExplainedNeuron(1, 2, "text", "the")]
    assert other_neurons([here, *others], 0)[1, 1] == others[0]


def test_without_one_of_its_type_any_neuron_is_taken():
    here = ExplainedNeuron(1, 1, "visual", "red")
    others = [ExplainedNeuron(2, 9, "text", "the"), ExplainedNeuron(3, 1, "visual", "red")]
    assert other_neurons([here, *others], 0)[1, 1] == others[0]


def test_a_neuron_alone_has_no_control():
    assert other_neurons([CROWD[0]], 0) == {}
    assert other_neurons([], 0) == {}


def test_the_choice_depends_on_the_seed_and_on_who_is_there_alone():
    assert other_neurons(CROWD[::-1], 0) == other_neurons(CROWD, 0)
    assert other_neurons(CROWD, 1) != other_neurons(CROWD, 0)


def test_neurons_do_not_all_get_the_same_control():
    texts = Counter(other.text for other in other_neurons(CROWD, 0).values())
    assert len(texts) > 10
