"""Evidence and near misses of a run: more neurons add to them later, and what is there stays as it
is."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts import EVIDENCE
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.items import ItemRunner
from neuron_atlas.workflows.run.stage import Item
from neuron_atlas.workflows.run.store import MANIFEST
from tests.workflows.runs import NAMES, SCENES, Atlas, small_run

FEW = "explain.neurons.per_layer_and_type=3"
MORE = "explain.neurons.per_layer_and_type=5"


@pytest.fixture(scope="module")
def few(ray_of_two_cores, tmp_path_factory) -> tuple[Context, Atlas]:
    out = tmp_path_factory.mktemp("evidence") / "out"
    return small_run(out, FEW), Atlas(out)


def key_of(row: dict) -> tuple:
    return tuple(row[name] for name in EVIDENCE.key)


def keys(atlas: Atlas, table: str) -> set[tuple[int, int]]:
    rows = atlas.table(table, [])
    return set(zip(rows["layer"].to_pylist(), rows["neuron"].to_pylist(), strict=True))


@pytest.fixture
def done(monkeypatch) -> list[Item]:
    """The items of the evidence stage that are worked on."""
    return watched(monkeypatch, "evidence", "gather")


@pytest.fixture
def near(monkeypatch) -> list[Item]:
    """The items of the stage of near misses that are worked on, without gathering."""
    return watched(monkeypatch, "near miss")


def watched(monkeypatch, *steps: str) -> list[Item]:
    found: list[Item] = []
    run = ItemRunner.run

    def counted(self, items, *rest, **named):
        if self.name in steps:
            found.extend(items)
        return run(self, items, *rest, **named)

    monkeypatch.setattr(ItemRunner, "run", counted)
    return found


def stamps(paths: list[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in paths}


def test_the_shards_and_chosen_rows_are_gone_once_they_are_gathered(few):
    context, _ = few
    names = sorted(path.name for path in context.folder("evidence").iterdir())
    assert names == [*sorted(context.done["evidence"].files["evidence"]), MANIFEST]
    names = sorted(path.name for path in context.folder("near_misses").iterdir())
    written = context.done["near_misses"].files
    assert names == sorted([*written["near_misses"], *written["stratum_sizes"], MANIFEST])


def test_near_misses_are_predicted_and_in_no_evidence_of_their_neuron(few):
    _, atlas = few
    evidence = set(map(sample_of, atlas.table("evidence", ["purpose"]).to_pylist()))
    rows = atlas.table("near_misses").to_pylist()
    assert not evidence & set(map(sample_of, rows))
    assert {(row["purpose"], row["stratum"]) for row in rows} == {("scorer", "near_miss")}
    simulated = atlas.table("simulations", ["stratum", "explanation"]).to_pylist()
    used = {sample_of(row) for row in simulated if row["stratum"] == "near_miss"}
    assert used == set(map(sample_of, rows))
    for row in atlas.table("stratum_sizes").to_pylist():
        assert row["exemplars"] + row["near_misses"] + row["rest"] == 150


def sample_of(row: dict) -> tuple[int, int, int]:
    return row["layer"], row["neuron"], row["sample_id"]


def test_without_near_misses_scores_have_two_strata(few, tmp_path, shared_mlflow):
    _, atlas = few
    context = small_run(atlas.out, FEW, "near_misses.samples=0")
    assert "explain" in context.stats.skipped
    assert len(atlas.table("near_misses")) == 0
    assert set(atlas.table("stratum_sizes")["near_misses"].to_pylist()) == {0}
    assert set(atlas.table("scores", ["n_near_misses"])["n_near_misses"].to_pylist()) == {0}
    small_run(atlas.out, FEW)


def test_more_neurons_add_files_and_replay_only_them(few, done, near, shared_mlflow):
    context, atlas = few
    near_before, near_rows = stamps(atlas.files("near_misses")), atlas.table("near_misses")
    before, rows = stamps(atlas.files("evidence")), atlas.table("evidence").to_pylist()
    explained = keys(atlas, "explanations")
    scores = atlas.table("scores", ["correlation", "control_other"])
    more = small_run(atlas.out, MORE)
    assert more.done["evidence"].fingerprint == context.done["evidence"].fingerprint
    assert more.stats.skipped == NAMES[: NAMES.index("evidence")]
    new = set(atlas.files("evidence")) - set(before)
    assert {path.name.split("-")[2] for path in new} == {"001", "003"}
    assert stamps(list(before)) == before
    added = keys(atlas, "explanations") - explained
    wanted = {(item.inputs[0], one) for item in done[:2] for one in item.inputs[1].explained}
    assert wanted == added
    assert len(added) > 0
    shards = [item.inputs[0] for item in done if item.key.startswith("shard-")]
    replayed = [one for shard in shards for one in shard.sample_ids]
    assert 0 < len(replayed) == len(set(replayed)) <= 150
    stored = set(map(key_of, rows))
    assert [row for row in atlas.table("evidence").to_pylist() if key_of(row) in stored] == rows
    assert more.done["near_misses"].fingerprint == context.done["near_misses"].fingerprint
    assert stamps(list(near_before)) == near_before
    assert set(atlas.files("near_misses")) > set(near_before)
    chosen = [item for item in near if item.key.startswith("choose-")]
    assert {(item.inputs[0], one) for item in chosen for one in item.inputs[2]} == added
    stored = set(map(key_of, near_rows.to_pylist()))
    found = [row for row in atlas.table("near_misses").to_pylist() if key_of(row) in stored]
    assert found == near_rows.to_pylist()
    assert keys(atlas, "stratum_sizes") == explained | added
    # Back to the few: all is there, and nothing runs.
    done.clear()
    near.clear()
    again = small_run(atlas.out, FEW)
    assert again.stats.skipped == [*NAMES]
    assert done == near == []
    assert atlas.table("scores", ["correlation", "control_other"]).equals(scores)


def test_after_a_kill_before_the_commit_nothing_is_replayed_again(few, done, shared_mlflow):
    context, atlas = few
    small_run(atlas.out, FEW)
    before = stamps(atlas.files("evidence"))
    (context.folder("evidence") / MANIFEST).unlink()
    done.clear()
    small_run(atlas.out, FEW)
    assert not any(item.key.startswith(("shard-", "gather-")) for item in done)
    assert stamps(atlas.files("evidence")).items() <= before.items()


def test_after_a_kill_before_the_commit_no_near_miss_is_replayed_again(few, near, shared_mlflow):
    context, atlas = few
    small_run(atlas.out, FEW)
    before = stamps(atlas.files("near_misses"))
    (context.folder("near_misses") / MANIFEST).unlink()
    near.clear()
    small_run(atlas.out, FEW)
    assert near
    assert not any(item.key.startswith("shard-") for item in near)
    assert stamps(atlas.files("near_misses")).items() <= before.items()


def test_a_lost_file_is_replayed_again_as_it_was(few, shared_mlflow):
    context, atlas = few
    small_run(atlas.out, FEW)
    explained = keys(atlas, "explanations")

    def rows() -> list[dict]:
        found = atlas.table("evidence").to_pylist()
        return [row for row in found if (row["layer"], row["neuron"]) in explained]

    before = rows()
    (context.folder("evidence") / context.done["evidence"].files["evidence"][0]).unlink()
    again = small_run(atlas.out, FEW)
    assert again.stats.skipped == [name for name in NAMES if name != "evidence"]
    assert [row for row in rows() if row["purpose"] != "show"] == [
        row for row in before if row["purpose"] != "show"
    ]


def test_actors_and_batches_change_no_row(few, tmp_path, shared_mlflow):
    _, atlas = few
    other = tmp_path / "out"
    small_run(other, FEW, "capture.batch_size=3", "cluster.actors=2", data=(SCENES,))
    for name in ("evidence", "near_misses", "stratum_sizes"):
        assert Atlas(other).table(name).equals(atlas.table(name))


def test_all_traces_are_stored_where_they_are_wanted(few, shared_mlflow):
    _, atlas = few
    small_run(atlas.out, FEW, "evidence.traces=all")
    assert keys(atlas, "evidence") == keys(atlas, "types")
