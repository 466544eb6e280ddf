from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    NEURON_TYPES,
    RANDOM_TRACES,
    SAMPLES,
    TRACES,
    TableSpec,
    write_table,
)
from neuron_atlas.tasks.evidence.evidence import (
    ActivationRecord,
    Evidence,
    Purpose,
    Split,
    balanced_samples,
    load_evidence,
    normalize_to_ten,
    read_traces,
    to_levels,
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


Files = tuple[Path, Path, list[Path]]


def sample_files(
    folder: Path, digests: dict[int, str], images: dict[int, list[str]] | None = None
) -> list[Path]:
    """The `samples` artifact in two files: digests of images, and for some samples references."""
    rows = [
        {
            "sample_id": sample_id,
            "images": (images or {}).get(sample_id, []),
            "image_sha256": digest,
            "status": "ok",
        }
        for sample_id, digest in digests.items()
    ]
    return [written(rows[start::2], SAMPLES, folder / f"samples-{start}") for start in range(2)]


@pytest.fixture
def files(tmp_path) -> Files:
    # Rows of `traces` come in any order; what counts is their rank.
    ranked = [row for neuron, ids in EXEMPLARS.items() for row in trace_rows(neuron, ids, True)]
    ranked = [ranked[place] for place in np.random.default_rng(0).permutation(len(ranked))]
    drawn = [row for neuron in sorted(EXEMPLARS) for row in trace_rows(neuron, DRAWN, False)]
    return (
        written(ranked, TRACES, tmp_path / "traces"),
        written(drawn, RANDOM_TRACES, tmp_path / "random"),
        sample_files(tmp_path, {number: f"image {number}" for number in range(1000)}),
    )


@pytest.fixture
def captioned(files, tmp_path) -> Files:
    """The same traces, with three samples in a row for each image, as captions have it."""
    images = {number: f"image {number // 3}" for number in range(1000)}
    return (*files[:2], sample_files(tmp_path / "captioned", images))


def types(*neurons: int) -> pa.Table:
    rows = [
        {
            "layer": LAYER,
            "neuron": neuron,
            "type": "visual",
            "scale": neuron / 2,
            "n_exemplars": len(EXEMPLARS[neuron]),
        }
        | dict.fromkeys(("share_visual", "share_text", "share_multimodal", "share_unknown"), 0.25)
        for neuron in neurons
    ]
    return pa.Table.from_pylist(rows, schema=NEURON_TYPES.schema)


def by_purpose(files: Files, neuron: int) -> dict[str, Evidence]:
    loaded = load_evidence(types(neuron), *files)
    return {purpose: loaded[purpose][0] for purpose in PURPOSES}


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


@pytest.mark.parametrize("neuron", EXEMPLARS)
def test_purposes_never_share_an_image_whatever_its_captions(captioned, neuron):
    by = by_purpose(captioned, neuron)
    seen = [{sample_id // 3 for sample_id in one.sample_ids} for one in by.values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert all(seen)
    everything = [sample_id for one in by.values() for sample_id in one.sample_ids]
    assert sorted(everything) == sorted({*EXEMPLARS[neuron], *DRAWN})


def test_all_captions_of_the_strongest_image_go_to_the_explainer(captioned):
    shown = by_purpose(captioned, 7)["explainer"].exemplars
    assert [seen.sample_id for seen in shown[:2]] == [100, 101]  # 99 is no exemplar.
    # The next image is the scorer's, though its samples are ranks 2 to 4.
    assert {102, 103, 104} <= set(by_purpose(captioned, 7)["scorer"].sample_ids)


def test_a_drawn_sample_of_an_exemplars_image_has_that_images_purpose(files, tmp_path):
    images = {number: f"image {number}" for number in range(1000)} | {901: "image 100"}
    twins = (*files[:2], sample_files(tmp_path / "twins", images))
    assert 901 in [seen.sample_id for seen in by_purpose(twins, 7)["explainer"].random]
    images[901] = "image 101"
    twins = (*files[:2], sample_files(tmp_path / "others", images))
    assert 901 in [seen.sample_id for seen in by_purpose(twins, 7)["scorer"].random]


def test_samples_whose_image_is_unknown_are_not_taken_for_one(files, tmp_path):
    nameless = (*files[:2], sample_files(tmp_path / "nameless", dict.fromkeys(range(1000), "")))
    for purpose, evidence in by_purpose(nameless, 7).items():
        assert evidence.sample_ids == by_purpose(files, 7)[purpose].sample_ids


@pytest.mark.parametrize("neuron", EXEMPLARS)
def test_evidence_of_any_purpose_tells_what_all_purposes_hold(captioned, neuron):
    by = by_purpose(captioned, neuron)
    for evidence in by.values():
        for purpose, of_purpose in by.items():
            assert sorted(getattr(evidence.split, purpose)) == sorted(of_purpose.sample_ids)


def test_a_split_that_shares_a_sample_or_an_image_is_refused():
    with pytest.raises(ValueError, match="explainer and scorer share the sample 3"):
        Split(explainer=(1, 3), calibration=(2,), scorer=(3, 4))
    split = Split(explainer=(1,), calibration=(2,), scorer=(3,))
    split.check_images({1: ["a"], 2: ["b"], 3: []})
    with pytest.raises(ValueError, match="calibration and scorer share the image b"):
        split.check_images({1: ["a"], 2: ["b"], 3: ["c", "b"]})


def test_samples_of_several_images_are_held_together_by_any_that_they_share(files, tmp_path):
    digests = {number: f"image {number}" for number in range(1000)}
    # 100 shares an image with 103, and 103 another with 107.
    album = {100: ["a"], 103: ["b", "a"], 107: ["c", "b"], 108: ["d"]}
    linked = (*files[:2], sample_files(tmp_path / "linked", digests, album))
    by = by_purpose(linked, 7)
    assert {100, 103, 107} <= set(by["explainer"].sample_ids)
    turns = ["explainer", "scorer", "explainer", "calibration"]
    ranked = [one for one in EXEMPLARS[7] if one not in (103, 107)]
    for place, sample_id in enumerate(ranked):
        assert sample_id in by[turns[place % 4]].sample_ids


def test_neurons_come_in_the_order_asked_for_each_with_its_own_traces(files):
    loaded = load_evidence(types(3, 7), *files)["explainer"]
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
    evidence = load_evidence(types(5), *files)["scorer"][0]
    assert evidence.exemplars == ()
    assert evidence.random


def test_only_the_traces_of_the_neurons_asked_for_are_read(files):
    assert set(read_traces(files[0], TRACES, [3])["neuron"].to_pylist()) == {3}
    assert len(read_traces(files[0], TRACES, [])) == 0


def test_normalising_maps_the_maximum_to_10_and_negative_values_to_0():
    activations = np.array([-3, 0, 0.5, 4], np.float32)
    assert normalize_to_ten(activations, 4).tolist() == [0, 0, 1.25, 10]
    assert normalize_to_ten(activations, 0).tolist() == [0, 0, 0, 0]


def test_levels_are_the_integers_from_0_to_10():
    tens = np.array([-3, np.nan, 0.4, 0.6, 9.7, 12], np.float32)
    assert to_levels(tens).tolist() == [0, 0, 0, 1, 10, 10]


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
    kinds = [
        tuple(ActivationRecord(n, nothing, nothing) for n in range(k)) for k in (exemplars, random)
    ]
    drawn = balanced_samples(Evidence(LAYER, 3, "text", 1.0, *kinds))
    found = {
        kind: [seen.sample_id for draw, seen in drawn if draw == kind]
        for kind in ("exemplar", "random")
    }
    assert (found["exemplar"], found["random"]) == taken
