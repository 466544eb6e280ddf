"""Near misses: what the explainer saw is none, and what is drawn depends on one neuron alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import CHOSEN, EVIDENCE, SAMPLES, STRATUM_SIZES, write_table
from neuron_atlas.tasks.evidence.strata import claim_of
from neuron_atlas.tasks.near_misses.choose import (
    ChosenSamples,
    choose_near_misses,
    split_dataset,
)
from neuron_atlas.tasks.near_misses.predicted import TERM_SAMPLES
from neuron_atlas.tasks.near_misses.settings import NearMissSettings

LAYER, USABLE = 2, 1000
RED = list(range(0, 300))
SAME_IMAGE = (250, 1)
"""A red sample, with the image of an exemplar that the explainer saw."""
TEXTS = {4: 'the word "red"', 7: 'the word "red"', 9: 'the word "purple"'}
SEEN, SCORED, RANDOM = (0, 1, 2, 3), (4, 5), ((600, "scorer"), (20, "scorer"), (21, "explainer"))


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """An index, evidence and samples."""
    words = pa.Table.from_pylist(
        [{"term": "red", "visual": [], "text": RED}], schema=TERM_SAMPLES.schema
    )
    write_table(words, TERM_SAMPLES, tmp_path / "index.parquet")
    rows = []
    for neuron in TEXTS:
        same = {"layer": LAYER, "neuron": neuron, "weight": 1.0, "visual": [1.0], "text": []}
        for purpose, ids in (("explainer", SEEN), ("scorer", SCORED)):
            for rank, one in enumerate(ids):
                row = {"sample_id": one, "rank": rank, "purpose": purpose, "stratum": "exemplar"}
                rows.append(same | row)
        for one, purpose in RANDOM:
            row = {"sample_id": one, "rank": -1, "purpose": purpose, "stratum": "random"}
            rows.append(same | row)
    evidence = pa.Table.from_pylist(rows, schema=EVIDENCE.schema)
    write_table(evidence, EVIDENCE, tmp_path / "evidence.arrow")
    samples = [
        {
            "sample_id": one,
            "source_id": str(one),
            "images": [f"{SAME_IMAGE[1] if one == SAME_IMAGE[0] else one}.png"],
            "image_sha256": "",
            "width": 1,
            "height": 1,
            "text": "",
            "status": "ok",
            "reason": "",
        }
        for one in range(USABLE)
    ]
    table = pa.Table.from_pylist(samples, schema=SAMPLES.schema)
    write_table(table, SAMPLES, tmp_path / "samples.parquet")
    names = ("index.parquet", "evidence.arrow", "samples.parquet")
    return tuple([tmp_path / name] for name in names)  # type: ignore[return-value]


def chosen(files, *neurons: int, **settings: int) -> tuple[list[dict], dict[int, dict]]:
    texts = {neuron: TEXTS[neuron] for neuron in neurons}
    rows, sizes = choose_near_misses(
        LAYER, "dissect", texts, *files, USABLE, NearMissSettings(**settings)
    )
    assert rows.schema.equals(CHOSEN.schema)
    assert sizes.schema.equals(STRATUM_SIZES.schema)
    return rows.to_pylist(), {row["neuron"]: row for row in sizes.to_pylist()}


def test_strata_add_up_to_the_dataset_and_know_which_scored_samples_are_predicted(files):
    rows, sizes = chosen(files, 4)
    assert sizes[4] == {
        "layer": LAYER,
        "neuron": 4,
        "explainer": "dissect",
        "claim": claim_of(TEXTS[4]),
        "exemplars": 6,
        "near_misses": len(RED) - 6,
        "rest": USABLE - len(RED),
        "predicted": len(RED),
        "predicted_ids": [4, 5, 20],
    }
    assert {(row["purpose"], row["stratum"], row["rank"]) for row in rows} == {
        ("scorer", "near_miss", -1)
    }
    assert sum(row["weight"] for row in rows) == pytest.approx(len(RED) - 6)


def test_a_near_miss_is_predicted_and_in_no_evidence_and_shares_no_image_with_what_was_seen(files):
    rows, _ = chosen(files, 4, samples=500)
    drawn = {row["sample_id"] for row in rows}
    assert drawn == set(RED) - {*SEEN, *SCORED, 20, 21, SAME_IMAGE[0]}
    assert len(chosen(files, 4)[0]) == 8


def test_the_rows_of_a_neuron_depend_on_no_other_and_on_the_seed(files):
    together, sizes = chosen(files, 4, 7, 9)
    alone, size = chosen(files, 7)
    assert [row for row in together if row["neuron"] == 7] == alone
    assert sizes[7] == size[7]
    assert chosen(files, 7, seed=1)[0] != alone
    # The same explanation has the same near misses, so their samples run once.
    drawn = {n: {row["sample_id"] for row in together if row["neuron"] == n} for n in (4, 7)}
    assert drawn[4] == drawn[7]


def test_an_explanation_that_predicts_nothing_has_no_near_miss(files):
    rows, sizes = chosen(files, 9)
    assert rows == []
    assert (sizes[9]["predicted"], sizes[9]["near_misses"], sizes[9]["rest"]) == (0, 0, USABLE - 6)


def test_switched_off_there_are_two_strata(files):
    rows, sizes = chosen(files, 4, samples=0)
    assert rows == []
    assert (sizes[4]["near_misses"], sizes[4]["rest"]) == (0, USABLE - 6)
    assert sizes[4]["predicted_ids"] == [4, 5, 20]


def test_every_sample_is_drawn_as_often():
    predicted = np.arange(40, dtype=np.int32)
    none = ChosenSamples(frozenset(), frozenset(), frozenset())
    counts = np.zeros(40)
    for seed in range(2000):
        _, candidates = split_dataset(predicted, none, 100, NearMissSettings(2, seed))
        counts[candidates[:2]] += 1
    expected = 2000 * 2 / 40
    assert np.square(counts - expected).sum() / expected < 70  # chi-squared with 39 degrees
