"""Ground truth: neurons that write "red" matter for red alone, and make the subject say it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts.grouped import GROUP_LOSSES
from neuron_atlas.tasks.groups.conditions import ablated, scaled
from neuron_atlas.tasks.groups.effects import ablation_effects, steering_effects
from neuron_atlas.tasks.groups.losses import measure_losses
from neuron_atlas.tasks.groups.measures import read_results
from neuron_atlas.tasks.groups.members import Members
from neuron_atlas.tasks.groups.naming import concept_vocabulary
from neuron_atlas.tasks.groups.sets import Group, NeuronSet, matched_sets
from neuron_atlas.tasks.groups.settings import NamedGroup
from neuron_atlas.tasks.groups.speech import Prompt, generate_under
from neuron_atlas.tasks.groups.table import speech_table
from neuron_atlas.tasks.groups.words import classify_tokens
from neuron_atlas.tasks.subject.load import Subject
from tests.one_process import Described
from tests.tasks.groups.writers import LAYER, WORD, WRITERS, plant_writers

RED = Group("red", 0.0, LAYER, LAYER)
NAMED = {"red": NamedGroup(tuple(f"{LAYER}:{one}" for one in WRITERS), (WORD,))}


@pytest.fixture(scope="module")
def writing(subject_folder: Path) -> Subject:
    return plant_writers(subject_folder)


@pytest.fixture(scope="module")
def sets() -> list[NeuronSet]:
    rng = np.random.default_rng(0)
    neurons, norms = np.arange(512), np.exp(rng.normal(0, 0.5, 512))
    members = Members(LAYER, neurons, np.full(512, "text"), norms * 0, norms, norms * 0)
    return list(matched_sets([members], RED, {LAYER: np.array(WRITERS)}, 20, 0))


def losses(subject, scenes, conditions, ids, batch_size=16):
    catalog = scenes.catalog(ids)
    classes = {one: classify_tokens(catalog[one], {WORD}) for one in ids}
    return measure_losses(subject, ids, catalog, classes, conditions, "gate", batch_size)


def test_ablating_the_writers_raises_the_loss_of_their_word_alone(writing, scenes, sets):
    ids = sorted(scenes.catalog().samples)[:12]
    table = losses(writing, scenes, ablated(sets, "zero"), ids)
    results = read_results(table, speech_table([], [], [], {}, concept_vocabulary([]), {}, {}))
    effects = {
        row["measure"]: row for row in ablation_effects(results, sets, 300, 0, 3.0).to_pylist()
    }
    red, other = effects["visual_words"], effects["other_words"]
    assert red["status"] == "ok"
    assert red["ci_low"] > 0
    assert red["effect"] > 1
    assert red["effect"] > 3 * red["band_high"]
    assert red["p_random"] == pytest.approx(2 / 21)
    assert abs(other["effect"]) < 0.02 * red["effect"]
    assert abs(effects["function_words"]["effect"]) < 0.02 * red["effect"]
    assert (red["n_neurons"], red["n_random"]) == (len(WRITERS), 20)


def test_losses_are_those_of_the_whole_model_for_any_batch_size(writing, scenes, sets):
    ids = sorted(scenes.catalog().samples)[:5]
    conditions = ablated(sets[:2], "zero")
    table = losses(writing, scenes, conditions, ids)
    for size in (1, 2):
        again = losses(writing, scenes, conditions, ids, size)
        for name in ("visual_loss", "other_loss", "alone_loss"):
            np.testing.assert_allclose(again[name], table[name], rtol=1e-4, atol=1e-5)
    halves = [losses(writing, scenes, conditions, part) for part in (ids[:2], ids[2:])]
    for part in halves:
        rows = {(row["draw"], row["alpha"], row["sample_id"]): row for row in table.to_pylist()}
        for row in part.to_pylist():
            same = rows[row["draw"], row["alpha"], row["sample_id"]]
            assert row["other_loss"] == pytest.approx(same["other_loss"], rel=1e-4, abs=1e-5)


def test_turning_the_writers_up_makes_the_subject_say_their_word(
    writing: Subject, scenes: Described, sets: list[NeuronSet]
):
    """Alpha is chosen on one half of the samples and reported on the other."""
    ids = sorted(scenes.catalog().samples)[:8]
    halves = {one: "choose" if place % 2 else "report" for place, one in enumerate(ids)}
    others = scaled(sets[:1], (2.0, 1e30))[1:]
    conditions = [*scaled(sets[:4], (8.0,)), *others]
    catalog = scenes.catalog(ids)
    images = {one: catalog.open_images(one) for one in ids}
    pairs = [(at, one) for at in range(len(conditions)) for one in ids]
    prompts = [Prompt(at, images[one]) for at, one in pairs]
    texts = generate_under(writing, conditions, prompts, "gate", 22, 64)
    truths = {one: {(kind.kind, kind.name) for kind in catalog.concepts(one)} for one in ids}
    vocabulary = concept_vocabulary({pair for one in truths.values() for pair in one})
    speech = speech_table(conditions, pairs, texts, truths, vocabulary, NAMED, {})
    results = read_results(losses(writing, scenes, conditions, ids), speech)
    rows = steering_effects(results, sets, halves, 200, 0, 3.0).to_pylist()
    says = {(row["alpha"], row["half"]): row for row in rows if row["measure"] == "says red"}
    assert {alpha for (alpha, _), row in says.items() if row["chosen"]} == {8.0}
    reported = says[8.0, "report"]
    assert reported["n_samples"] == 4
    assert reported["changed"] == 1
    assert reported["intact"] < 0.7
    assert reported["effect"] > reported["band_high"]
    assert says[1e30, "report"]["status"] == "overflow"
    assert abs(says[2.0, "report"]["effect"]) < 0.3


def test_no_factor_is_chosen_that_is_no_better_than_no_change(sets):
    """Every condition gets every name right."""
    conditions = scaled(sets[:4], (2.0, 4.0))
    ids = range(6)
    pairs = [(at, one) for at in range(len(conditions)) for one in ids]
    vocabulary = concept_vocabulary([("color", "red"), ("color", "blue")])
    truths = {one: {("color", "red")} for one in ids}
    speech = speech_table(conditions, pairs, ["red"] * len(pairs), truths, vocabulary, {}, {})
    results = read_results(GROUP_LOSSES.schema.empty_table(), speech)
    halves = {one: "choose" if one % 2 else "report" for one in ids}
    rows = steering_effects(results, sets, halves, 20, 0, 3.0).to_pylist()
    assert {row["changed"] for row in rows if row["measure"] == "right"} == {1.0}
    assert not any(row["chosen"] for row in rows)


def test_named_groups_are_read_as_written():
    group = replace(NAMED["red"], neurons=("3:7", "0:2", "3:1"))
    assert group.by_layer() == {0: [2], 3: [1, 7]}
