"""From the captured exemplars to the evidence of each purpose, with traces that are made up."""

from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    EVIDENCE,
    NEURON_TYPES,
    NO_SAMPLE,
    SAMPLES,
    TableSpec,
    arrow_files,
    exemplars_spec,
    read_table,
    write_table,
)
from neuron_atlas.tasks.evidence.choose import choose_evidence
from neuron_atlas.tasks.evidence.evidence import (
    ActivationRecord,
    Evidence,
    Purpose,
    Split,
    balanced_samples,
    normalize_to_ten,
    to_levels,
)
from neuron_atlas.tasks.evidence.gather import gather_layer
from neuron_atlas.tasks.evidence.read import load_evidence
from neuron_atlas.tasks.evidence.wanted import Wanted

PURPOSES = get_args(Purpose)
LAYER = 2
TOP_N = 50
EXEMPLARS = {7: list(range(100, 150)), 3: list(range(300, 337)), 5: []}
DRAWN = [*range(140, 160), *range(330, 340), 901, 902]
"""Drawn at random for all neurons: some of them are exemplars of neuron 7, others of neuron 3."""
USABLE = 1000


def written(rows: list[dict], spec: TableSpec, path: Path) -> Path:
    write_table(pa.Table.from_pylist(rows, schema=spec.schema), spec, path)
    return path


Files = tuple[Path, list[Path]]
"""The exemplars of the layer, and the files of `samples`."""


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


def ranked_file(path: Path, ranked: dict[int, list[int]]) -> Path:
    slots = {neuron: ids + [NO_SAMPLE] * (TOP_N - len(ids)) for neuron, ids in ranked.items()}
    rows = [
        {"layer": LAYER, "neuron": neuron, "sample_id": ids}
        | {name: [0] * TOP_N for name in ("peak", "peak_role", "peak_token")}
        for neuron, ids in slots.items()
    ]
    table = pa.Table.from_pylist(rows)
    spec = exemplars_spec(TOP_N)
    other = [name for name in spec.schema.names if name not in table.column_names]
    for name in other:
        table = table.append_column(name, pa.nulls(len(table), spec.schema.field(name).type))
    write_table(table, spec, path)
    return path


@pytest.fixture
def files(tmp_path) -> Files:
    return (
        ranked_file(tmp_path / "exemplars", EXEMPLARS),
        sample_files(tmp_path, {number: f"image {number}" for number in range(USABLE)}),
    )


@pytest.fixture
def captioned(files, tmp_path) -> Files:
    """The same exemplars, with three samples in a row for each image, as captions have it."""
    images = {number: f"image {number // 3}" for number in range(USABLE)}
    return (*files[:1], sample_files(tmp_path / "captioned", images))


def chosen(files: Files, wanted: Wanted, limit: int | None = None) -> pa.Table:
    return choose_evidence(LAYER, wanted, *files, DRAWN, USABLE, limit)


def with_traces(rows: pa.Table) -> pa.Table:
    """Rows of `evidence` whose traces tell their sample and their neuron."""
    visual = [[one / 8, -1.0] for one in rows["sample_id"].to_pylist()]
    text = [[float(one)] for one in rows["neuron"].to_pylist()]
    columns = {name: rows[name] for name in rows.column_names}
    return pa.table(columns | {"visual": visual, "text": text}).cast(EVIDENCE.schema)


def gathered(rows: pa.Table, folder: Path, shards: int = 3) -> Path:
    """The layer's file, from shards of samples as a replay writes them."""
    folder.mkdir(exist_ok=True)
    write_table(rows, CHOSEN, folder / "chosen")
    shard = rows["sample_id"].to_numpy() % shards
    order = [(name, "ascending") for name in ("purpose", "neuron", "stratum", "rank", "sample_id")]
    paths = []
    for number in range(shards):
        mine = with_traces(rows.filter(pa.array(shard == number))).sort_by(order)
        paths.append(folder / f"shard-{number}.arrow")
        write_table(mine, EVIDENCE, paths[-1])
    path = folder / f"evidence-layer-002-{len(list(folder.iterdir()))}.arrow"
    gather_layer(LAYER, folder / "chosen", paths, path)
    return path


def load(files: Files, *neurons: int) -> dict[Purpose, list[Evidence]]:
    rows = chosen(files, Wanted(tuple(sorted(neurons))))
    return load_evidence(types(*neurons), [gathered(rows, files[0].parent / "gathered")])


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
    loaded = load(files, neuron)
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
    twins = (*files[:1], sample_files(tmp_path / "twins", images))
    assert 901 in [seen.sample_id for seen in by_purpose(twins, 7)["explainer"].random]
    images[901] = "image 101"
    twins = (*files[:1], sample_files(tmp_path / "others", images))
    assert 901 in [seen.sample_id for seen in by_purpose(twins, 7)["scorer"].random]


def test_samples_whose_image_is_unknown_are_not_taken_for_one(files, tmp_path):
    nameless = (*files[:1], sample_files(tmp_path / "nameless", dict.fromkeys(range(1000), "")))
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
    linked = (*files[:1], sample_files(tmp_path / "linked", digests, album))
    by = by_purpose(linked, 7)
    assert {100, 103, 107} <= set(by["explainer"].sample_ids)
    turns = ["explainer", "scorer", "explainer", "calibration"]
    ranked = [one for one in EXEMPLARS[7] if one not in (103, 107)]
    for place, sample_id in enumerate(ranked):
        assert sample_id in by[turns[place % 4]].sample_ids


def test_neurons_come_in_the_order_asked_for_each_with_its_own_traces(files):
    loaded = load(files, 3, 7)["explainer"]
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
    evidence = load(files, 5)["scorer"][0]
    assert evidence.exemplars == ()
    assert evidence.random


@pytest.mark.parametrize("purposes", [PURPOSES[:1], PURPOSES[1:], PURPOSES])
def test_no_row_of_another_neuron_and_no_trace_of_another_purpose_is_loaded(
    files, tmp_path, monkeypatch, purposes
):
    monkeypatch.setattr(arrow_files, "BATCH_ROWS", 1)
    rows = chosen(files, Wanted((3, 5, 7)))
    path = gathered(rows, tmp_path / "gathered")
    loaded: list[dict] = []
    load_batch = arrow_files.load_batch

    def counted(reader, number):
        batch = load_batch(reader, number)
        loaded.extend(batch.to_pylist())
        return batch

    monkeypatch.setattr(arrow_files, "load_batch", counted)
    evidence = load_evidence(types(3), [path], purposes)
    assert {row["neuron"] for row in loaded} == {3}
    traces = [row for row in loaded if "visual" in row]
    assert {row["purpose"] for row in traces} == set(purposes)
    found = [one for purpose in purposes for one in evidence[purpose][0].sample_ids]
    assert sorted(row["sample_id"] for row in traces) == sorted(found)


def test_rows_of_a_neuron_do_not_depend_on_the_other_neurons(captioned):
    together = chosen(captioned, Wanted((3, 5), {7: (0, 4)}))
    for neuron, wanted in ((3, Wanted((3,))), (5, Wanted((5,))), (7, Wanted((), {7: (0, 4)}))):
        mine = together.filter(pa.array([one == neuron for one in together["neuron"].to_pylist()]))
        assert mine.equals(chosen(captioned, wanted))


def test_a_neuron_that_is_only_shown_has_its_strongest_exemplars(files):
    rows = chosen(files, Wanted((), {7: (0, 3), 3: (2, 4), 5: (0, 9)})).to_pylist()
    found = {(row["neuron"], row["rank"], row["sample_id"]) for row in rows}
    assert found == {(7, 0, 100), (7, 1, 101), (7, 2, 102), (3, 2, 302), (3, 3, 303)}
    assert {(row["purpose"], row["stratum"], row["weight"]) for row in rows} == {
        ("show", "exemplar", 1.0)
    }


def test_weights_say_how_many_samples_of_the_dataset_a_row_stands_for(files):
    rows = chosen(files, Wanted((7,))).to_pylist()
    weights = {"exemplar": 0.0, "random": 0.0}
    for row in rows:
        weights[row["stratum"]] += row["weight"]
    assert weights == {"exemplar": 50, "random": pytest.approx(USABLE - 50)}


def test_a_limit_leaves_the_strongest_exemplars(files):
    rows = chosen(files, Wanted((7,)), limit=10).to_pylist()
    ranked = {row["rank"]: row["sample_id"] for row in rows if row["stratum"] == "exemplar"}
    assert ranked == dict(enumerate(range(100, 110)))
    assert {row["sample_id"] for row in rows if row["stratum"] == "random"} == set(DRAWN)


def test_files_of_several_runs_are_read_together(files, tmp_path):
    folder = tmp_path / "gathered"
    first = gathered(chosen(files, Wanted((3,), {7: (0, 2)})), folder)
    second = gathered(chosen(files, Wanted((7,))), folder)
    both = load_evidence(types(7, 3), [first, second])
    for purpose, alone in load(files, 7, 3).items():
        for mine, other in zip(both[purpose], alone, strict=True):
            assert (mine.neuron, mine.sample_ids, mine.split) == (
                other.neuron,
                other.sample_ids,
                other.split,
            )


def test_a_row_that_no_shard_has_is_an_error_and_leaves_no_file(files, tmp_path):
    rows = chosen(files, Wanted((3,)))
    write_table(rows, CHOSEN, tmp_path / "all")
    write_table(with_traces(rows.slice(1)), EVIDENCE, tmp_path / "shard.arrow")
    with pytest.raises(ValueError, match=f"{len(rows) - 1} of {len(rows)} rows"):
        gather_layer(LAYER, tmp_path / "all", [tmp_path / "shard.arrow"], tmp_path / "x.arrow")
    assert not (tmp_path / "x.arrow").exists()


def test_the_gathered_file_is_sorted_and_the_same_for_any_shards(files, tmp_path, monkeypatch):
    rows = chosen(files, Wanted((3, 5), {7: (0, 2)}))
    tables = []
    for shards, chunk in ((1, 16_384), (4, 16_384), (4, 5)):
        monkeypatch.setattr("neuron_atlas.tasks.evidence.gather._CHUNK_ROWS", chunk)
        path = gathered(rows, tmp_path / f"{shards}-{chunk}", shards)
        tables.append(read_table(path, EVIDENCE))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    keys = [tuple(row.values()) for row in tables[0].select(["purpose", "neuron"]).to_pylist()]
    assert keys == sorted(keys)


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
