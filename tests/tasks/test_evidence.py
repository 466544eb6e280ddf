from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from tasks.artifacts import NEURON_TYPES, RANDOM_TRACES, TRACES, TableSpec, write_table
from tasks.evidence import (
    Evidence,
    Excitation,
    Purpose,
    exemplar_purpose,
    load_evidence,
    one_to_one,
    read_traces,
    to_ten,
)

PURPOSES = get_args(Purpose)
LAYER = 2
EXEMPLARS = {7: list(range(100, 150)), 3: list(range(300, 337)), 5: []}
DRAWN = [*range(140, 160), *range(330, 340), 901, 902]
"""Drawn at random for all neurons: some of them are exemplars of neuron 7, others of neuron 3."""


def trace_rows(neuron: int, sample_ids: list[int], ranked: bool) -> list[dict]:
    return [
        {
            "layer": LAYER,
            "neuron": neuron,
            "sample_id": sample_id,
            "visual": [sample_id / 8, -1.0],
            "text": [float(neuron)],
        }
        | ({"rank": rank} if ranked else {})
        for rank, sample_id in enumerate(sample_ids)
    ]


def written(rows: list[dict], spec: TableSpec, path: Path) -> Path:
    write_table(pa.Table.from_pylist(rows, schema=spec.schema), spec, path)
    return path


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    # Rows of `traces` come in any order; what counts is their rank.
    ranked = [row for neuron, ids in EXEMPLARS.items() for row in trace_rows(neuron, ids, True)]
    ranked = [ranked[place] for place in np.random.default_rng(0).permutation(len(ranked))]
    drawn = [row for neuron in sorted(EXEMPLARS) for row in trace_rows(neuron, DRAWN, False)]
    return (
        written(ranked, TRACES, tmp_path / "traces"),
        written(drawn, RANDOM_TRACES, tmp_path / "random"),
    )


def types(*neurons: int) -> pa.Table:
    rows = [
        {
            "layer": LAYER,
            "neuron": neuron,
            "type": "visual",
            "scale": neuron / 2,
            "n_exemplars": len(EXEMPLARS[neuron]),
        }
        | dict.fromkeys(("p_visual", "p_text", "p_multimodal", "p_unknown"), 0.25)
        for neuron in neurons
    ]
    return pa.Table.from_pylist(rows, schema=NEURON_TYPES.schema)


def by_purpose(files: tuple[Path, Path], neuron: int) -> dict[str, Evidence]:
    return {purpose: load_evidence(types(neuron), *files, purpose)[0] for purpose in PURPOSES}


@pytest.mark.parametrize("neuron", EXEMPLARS)
def test_purposes_never_share_a_sample(files, neuron):
    seen = [set(evidence.sample_ids) for evidence in by_purpose(files, neuron).values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert set().union(*seen) == {*EXEMPLARS[neuron], *DRAWN}


def test_a_drawn_sample_that_is_an_exemplar_is_evidence_only_as_an_exemplar(files):
    for evidence in by_purpose(files, 7).values():
        assert not {seen.sample_id for seen in evidence.random} & set(EXEMPLARS[7])
        assert not evidence.random or evidence.random[-1].sample_id > 149


def test_the_strongest_exemplar_comes_first_and_goes_to_the_explainer(files):
    for evidence in by_purpose(files, 7).values():
        ranks = [EXEMPLARS[7].index(seen.sample_id) for seen in evidence.exemplars]
        assert ranks == sorted(ranks)
    assert by_purpose(files, 7)["explainer"].exemplars[0].sample_id == EXEMPLARS[7][0]


def test_explainer_and_scorer_see_equally_strong_exemplars(files):
    mean = {
        purpose: np.mean([seen.sample_id for seen in evidence.exemplars])
        for purpose, evidence in by_purpose(files, 7).items()
    }
    assert abs(mean["explainer"] - mean["scorer"]) < 2


def test_the_scorer_gets_half_of_the_random_samples_and_every_purpose_some(files):
    sizes = {purpose: len(seen.random) for purpose, seen in by_purpose(files, 5).items()}
    assert sizes == {"scorer": 16, "explainer": 8, "calibration": 8}


def test_the_rank_tells_what_an_exemplar_is_for(files):
    for purpose, evidence in by_purpose(files, 3).items():
        for seen in evidence.exemplars:
            assert exemplar_purpose(EXEMPLARS[3].index(seen.sample_id)) == purpose


def test_neurons_come_in_the_order_asked_for_each_with_its_own_traces(files):
    loaded = load_evidence(types(3, 7), *files, "explainer")
    assert [evidence.neuron for evidence in loaded] == [3, 7]
    for evidence in loaded:
        assert (evidence.layer, evidence.type, evidence.scale) == (
            LAYER,
            "visual",
            evidence.neuron / 2,
        )
        for seen in (*evidence.exemplars, *evidence.random):
            assert seen.text.tolist() == [evidence.neuron]
            assert seen.visual.tolist() == [np.float16(seen.sample_id / 8), -1]
            assert seen.visual.dtype == seen.text.dtype == np.float32


def test_a_neuron_without_exemplars_still_has_its_random_samples(files):
    evidence = load_evidence(types(5), *files, "scorer")[0]
    assert evidence.exemplars == ()
    assert evidence.random


def test_only_the_traces_of_the_neurons_asked_for_are_read(files):
    assert set(read_traces(files[0], TRACES, [3])["neuron"].to_pylist()) == {3}
    assert len(read_traces(files[0], TRACES, [])) == 0


def test_normalising_maps_the_maximum_to_10_and_negative_values_to_0():
    activations = np.array([-3, 0, 0.5, 4], np.float32)
    assert to_ten(activations, 4).tolist() == [0, 0, 1.25, 10]
    assert to_ten(activations, 0).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("exemplars", "random", "taken"),
    [
        (6, 6, ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])),
        (6, 3, ([1, 3, 5], [0, 1, 2])),
        (2, 8, ([0, 1], [2, 6])),
        (5, 1, ([2], [0])),
        (5, 0, ([], [])),
        (0, 5, ([], [])),
    ],
)
def test_exemplars_and_random_samples_are_taken_one_to_one_evenly_from_the_more(
    exemplars, random, taken
):
    nothing = np.empty(0, np.float32)
    kinds = [tuple(Excitation(n, nothing, nothing) for n in range(k)) for k in (exemplars, random)]
    drawn = one_to_one(Evidence(LAYER, 3, "text", 1.0, *kinds))
    found = {
        kind: [seen.sample_id for draw, seen in drawn if draw == kind]
        for kind in ("exemplar", "random")
    }
    assert (found["exemplar"], found["random"]) == taken
