"""The neurons that are ablated come from all layers, types and sizes of attribution."""

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.effects.choose import choose_explained, choose_neurons
from neuron_atlas.tasks.effects.effect_rows import causal_types
from neuron_atlas.tasks.effects.settings import EffectsSettings


def tables(layers: int = 2, neurons: int = 200) -> tuple[pa.Table, pa.Table]:
    layer, neuron = (one.ravel() for one in np.indices((layers, neurons)))
    rng = np.random.default_rng(0)
    effects = pa.table(
        {
            "layer": layer, "neuron": neuron,
            "effect": rng.normal(size=layers * neurons) ** 3,
            "mean_activation": np.ones(layers * neurons),
        }
    )  # fmt: skip
    types = pa.table({"layer": layer, "neuron": neuron, "type": [TYPES[one % 4] for one in neuron]})
    return effects, types


def test_every_stratum_is_drawn_from_before_any_is_drawn_from_twice():
    effects, types = tables()
    chosen = choose_neurons(effects, types, 24, seed=0)
    assert len({(one.layer, one.neuron) for one in chosen}) == 24
    sizes = np.abs(effects["effect"].to_numpy()).reshape(2, 200)
    strata = set()
    for one in chosen:
        rank = (sizes[one.layer] < sizes[one.layer, one.neuron]).mean()
        strata.add((one.layer, one.neuron % 4, int(rank >= 0.5) + int(rank >= 0.9)))
    assert len(strata) == 24


def test_the_choice_depends_on_the_seed_and_on_no_order_of_rows():
    effects, types = tables()
    chosen = choose_neurons(effects, types, 30, seed=0)
    order = np.random.default_rng(1).permutation(len(effects))
    assert choose_neurons(effects.take(order), types, 30, seed=0) == chosen
    assert choose_neurons(effects, types, 30, seed=1) != chosen
    assert choose_neurons(effects, types, 0, seed=0) == []


def test_a_neuron_without_a_finite_effect_is_not_chosen():
    effects, types = tables(1, 8)
    broken = effects.set_column(2, "effect", pa.array([np.nan] * 7 + [1.0]))
    assert [one.neuron for one in choose_neurons(broken, types, 5, seed=0)] == [7]


def test_explanations_are_drawn_by_a_hash_of_each():
    keys = [(layer, neuron) for layer in range(3) for neuron in range(50)]
    drawn = choose_explained(keys, 20, seed=0)
    assert len(drawn) == 20
    assert choose_explained(reversed(keys), 20, seed=0) == drawn
    assert choose_explained(keys[:100], 150, seed=0) == set(keys[:100])


def test_the_causal_type_is_the_role_with_most_of_the_effect_if_that_differs_from_0():
    magnitudes = np.array([[8, 1, 4, 0, 0, 9], [1, 8, 4, 0, 0, 0.5], [1, 1, 1, 9, 0, 0.5]], float)
    q = np.array([[0.01, 1, 1, 1, 1, 0.5], [1, 0.01, 0.01, 1, 1, 0.01], [1, 1, 1, 0.01, 1, 1]])
    assert causal_types(magnitudes, q, EffectsSettings()).tolist() == [
        "visual", "text", "multi-modal", "template", "none", "none"
    ]  # fmt: skip
