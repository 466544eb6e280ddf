"""Evidence of a run: more neurons add to it later, and what is there stays as it is."""

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
    found: list[Item] = []
    run = ItemRunner.run

    def counted(self, items, *rest, **named):
        if self.name in ("evidence", "gather"):
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


def test_more_neurons_add_files_and_replay_only_them(few, done, shared_mlflow):
    context, atlas = few
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
    # Back to the few: all is there, and nothing runs.
    done.clear()
    again = small_run(atlas.out, FEW)
    assert again.stats.skipped == [*NAMES]
    assert done == []
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
    assert Atlas(other).table("evidence").equals(atlas.table("evidence"))


def test_all_traces_are_stored_where_they_are_wanted(few, shared_mlflow):
    _, atlas = few
    small_run(atlas.out, FEW, "evidence.traces=all")
    assert keys(atlas, "evidence") == keys(atlas, "types")
