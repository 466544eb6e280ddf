"""CHAIR on captions whose objects are known, and POPE on subjects whose answers are known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts.grouped import GROUP_LOSSES
from neuron_atlas.tasks.groups import speech
from neuron_atlas.tasks.groups.conditions import intact
from neuron_atlas.tasks.groups.measure import Plan, measure
from neuron_atlas.tasks.groups.measures import read_results
from neuron_atlas.tasks.groups.naming import OBJECT, concept_vocabulary, vocabulary_of
from neuron_atlas.tasks.groups.table import speech_table
from neuron_atlas.tasks.samples.llava_json import LlavaJson
from tests.objects import OBJECTS, PHOTOS, SYNONYMS, write_annotations

pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs")
SHAPE = "shape"
ASKED = re.compile(r"Is there an? (\w+) in the image\?")
FEW = 8


@pytest.mark.parametrize(("synonyms", "fruits"), [(SYNONYMS, 0), (None, 2)])
def test_chair_of_the_photographs_captions_is_as_counted_by_hand(tmp_path, synonyms, fruits):
    """fruits: captions with something orange, which COCO's object of that name counts."""
    source = LlavaJson(str(write_annotations(tmp_path)), str(PHOTOS / "images"))
    objects = source.objects()
    assert objects == {name: tuple(some) for name, some in OBJECTS.items()}
    records = {one.source_id: one.text for one in source.records()}
    names = list(objects)
    truths = {at: {(OBJECT, one) for one in objects[name]} for at, name in enumerate(names)}
    vocabulary = vocabulary_of((), (one for some in truths.values() for one in some), synonyms)
    pairs = [(0, at) for at in range(len(names))]
    texts = [records[name] for name in names]
    table = speech_table([intact()], pairs, texts, truths, vocabulary, {}, {})
    rows = dict(zip(names, table.to_pylist(), strict=True))
    # Woman and man are a person; a spoon was not annotated; neither the tie nor a plant is named.
    assert (rows["coffee"]["named"], rows["coffee"]["right"]) == ([3], [2])
    assert (rows["grace_hopper"]["right"], rows["grace_hopper"]["present"]) == ([1], [2])
    assert (rows["rocket"]["named"], rows["rocket"]["present"]) == ([0], [0])
    totals = {name: sum(row[name][0] for row in rows.values()) for name in ("named", "right")}
    assert totals == {"named": 8 + fruits, "right": 7}
    measures = read_results(GROUP_LOSSES.schema.empty_table(), table).measures
    assert ratio(measures["wrong_names"]) == pytest.approx((1 + fruits) / (8 + fruits))
    assert ratio(measures["recall"]) == pytest.approx(7 / 9)


def ratio(measured) -> float:
    return float(np.nansum(measured.above[0]) / np.nansum(measured.below[0]))


@pytest.mark.parametrize(
    ("answers", "correct", "yes"),
    [
        (lambda is_there: "Yes, there is." if is_there else "No.", 1.0, 0.5),
        (lambda is_there: "yes", 0.5, 1.0),
        (lambda is_there: "No, it does not show one", 0.5, 0.0),
        (lambda is_there: "no" if is_there else "yes", 0.0, 0.5),
        (lambda is_there: "yes" if is_there else "Perhaps", 0.5, 1.0),
    ],
    ids=["right", "always yes", "always no", "always wrong", "evasive"],
)
def test_pope_of_a_subject_with_known_answers(subject, scenes, monkeypatch, answers, correct, yes):
    catalog = scenes.catalog()
    ids = sorted(catalog.samples)[:FEW]
    truths = {
        one: {(concept.kind, concept.name) for concept in catalog.concepts(one)} for one in ids
    }
    shapes = {
        catalog.open_images(one)[0].tobytes(): {name for kind, name in truths[one] if kind == SHAPE}
        for one in ids
    }
    generate = speech.generate_descriptions

    def answer(asked, images, max_new_tokens):
        found = ASKED.fullmatch(asked.settings.question)
        if found is None:
            return generate(asked, images, max_new_tokens)
        return [(answers(found[1] in shapes[one[0].tobytes()]), 1) for one in images]

    monkeypatch.setattr(speech, "generate_descriptions", answer)
    every = {thing for one in scenes.catalog().samples for thing in _things(catalog, one)}
    plan = Plan(
        sample_ids=ids,
        described=ids,
        truths=truths,
        vocabulary=concept_vocabulary(every),
        named={},
        questions=2,
        max_new_tokens=4,
        seed=0,
    )
    losses, said = measure(subject, plan, catalog, [intact()], "gate", 8)
    assert said["asked"].to_pylist() == [2] * FEW
    measures = read_results(losses, said).measures
    assert ratio(measures["yes_no_correct"]) == correct
    assert ratio(measures["yes_ratio"]) == yes


def _things(catalog, sample_id):
    return {(concept.kind, concept.name) for concept in catalog.concepts(sample_id)}
