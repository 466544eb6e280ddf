"""A finished run opened in Python: its tables and neurons, other runs, from an object store."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from neuron_atlas.tasks.artifacts import (
    EXPERTS,
    ExpertLayout,
    layer_file,
    layer_of,
    write_table,
)
from neuron_atlas.tasks.atlas import (
    Atlas,
    NeuronNotFoundError,
    OldTableError,
    RunNotFoundError,
    TraceNotStoredError,
)
from neuron_atlas.tasks.atlas.export import export
from neuron_atlas.tasks.report.neuron_view import neuron_html
from neuron_atlas.workflows.run.store import Manifest, Store
from tests.loopback.object_store import BUCKET
from tests.workflows.runs import LAYERS, TOP_N


@pytest.fixture(scope="module")
def opened(first_run) -> Atlas:
    return Atlas.open(first_run.store.out)


@pytest.fixture(scope="module")
def explained(opened):
    """A neuron whose explanation was scored."""
    row = opened.scores.filter(pl.col("status") == "ok").first().collect()
    return opened.neuron(row["layer"].item(), row["neuron"].item())


def test_tables_are_lazy_frames_of_what_the_run_left(opened, atlas):
    names = ("types", "tested_types", "explanations", "scores", "samples", "score_aggregates")
    for name in (*names, "evidence"):
        frame = getattr(opened, name)
        assert isinstance(frame, pl.LazyFrame)
        assert frame.select(pl.len()).collect().item() == atlas.table(name).num_rows
        assert name in dir(opened)
    assert "report" not in opened.tables
    assert opened.layers == LAYERS


def test_a_neuron_knows_its_type_explanations_and_scores(opened, explained, atlas):
    rows = atlas.table("types").to_pylist()
    mine = [r for r in rows if (r["layer"], r["neuron"]) == (explained.layer, explained.index)]
    assert [explained.row] == mine
    assert explained.type == mine[0]["type"]
    assert sum(explained.shares.values()) == pytest.approx(1)
    assert explained.explanations["explainer"].to_list() == ["dissect"]
    assert set(explained.scores["tokens"]) == {"all", "visual", "text"}
    assert explained.explanations["text"][0] in repr(explained)


def test_a_neuron_of_an_expert_is_named_by_it(opened, explained, tmp_path):
    layer, index = explained.layer, explained.index
    layout = ExpertLayout(((15, 32),), shared=32)
    path = tmp_path / layer_file(EXPERTS, layer)
    write_table(layout.table(layer), EXPERTS, path)
    listed = dict(opened.run.artifacts["types"]) | {"files": [str(path)], "rows": 16}
    artifacts = {**opened.run.artifacts, "experts": listed}
    mixed = Atlas(replace(opened.run, artifacts=artifacts), opened.source)
    assert mixed.expert_layout(layer) == layout
    assert mixed.expert_layout(min(set(LAYERS) - {layer})) is opened.expert_layout(layer) is None
    name = layout.name(index)
    assert name in (
        f"expert {index // 32}, neuron {index % 32}",
        f"shared expert, neuron {index % 32}",
    )
    assert f"<Neuron {layer}:{index} ({name})" in repr(mixed.neuron(layer, index))
    assert name.capitalize() in neuron_html(mixed.neuron(layer, index).record)
    assert "xpert" not in repr(explained).partition(",")[0]
    assert [one.name for one in export(mixed, tmp_path / "exported")][:2] == ["types", "experts"]


def test_its_exemplars_have_traces_images_and_heat(opened, explained, atlas):
    exemplars = explained.exemplars
    kept = opened.exemplars.filter(
        pl.col("layer") == explained.layer, pl.col("neuron") == explained.index
    ).collect()
    assert [one.sample_id for one in exemplars] == kept["sample_id"][0].to_list()
    assert [one.rank for one in exemplars] == list(range(TOP_N))
    np.testing.assert_allclose([one.peak for one in exemplars], kept["peak"][0], rtol=1e-3)
    strongest = exemplars[0]
    assert strongest.image is not None
    assert strongest.image.size == (strongest.sample.view.width, strongest.sample.view.height)
    assert len(strongest.tokens) == len(strongest.text)
    assert strongest.heat is not None
    assert strongest.heat.size == len(strongest.visual)
    assert 0 <= strongest.heat.min() <= strongest.heat.max() <= 10.001


def test_an_exemplar_without_a_trace_is_listed_and_says_how_to_get_its_heat_map(opened, atlas):
    evidence = atlas.table("evidence", [])
    stored = set(zip(evidence["layer"].to_pylist(), evidence["neuron"].to_pylist(), strict=True))
    types = atlas.table("types", []).to_pylist()
    layer, index = next(
        (row["layer"], row["neuron"])
        for row in types
        if (row["layer"], row["neuron"]) not in stored
    )
    neuron = opened.neuron(layer, index)
    assert len(neuron.exemplars) == TOP_N
    strongest = neuron.exemplars[0]
    assert strongest.trace is None
    assert strongest.peak >= neuron.exemplars[1].peak
    assert strongest.image is not None
    assert strongest.tokens
    for name in ("heat", "visual", "text"):
        with pytest.raises(TraceNotStoredError, match=r"has no heat map.*evidence\.traces=all"):
            getattr(strongest, name)
    assert neuron._repr_html_().count("the activations of this sample are not stored") == 6


def test_a_run_of_an_older_version_says_what_to_do(opened, explained):
    artifacts = {name: one for name, one in opened.run.artifacts.items() if name != "evidence"}
    older = replace(opened, run=replace(opened.run, artifacts=artifacts))
    strongest = older.neuron(explained.layer, explained.index).exemplars[0]
    with pytest.raises(TraceNotStoredError, match=r"older version.*Run its command again"):
        _ = strongest.heat


def test_its_picture_shows_all_of_that_and_needs_nothing_else(explained):
    shown = explained._repr_html_()
    words = " ".join(re.sub(r"<[^>]+>", "", shown).split())
    assert f"Layer {explained.layer} Neuron {explained.index}" in words
    assert shown.count("data:image/jpeg;base64,") == 6
    assert shown.count("data:image/png;base64,") == 6
    assert set(re.findall(r'(?:src|href)="(\w+:)', shown)) == {"data:"}
    assert "score " in shown
    assert "<script" not in shown


def test_words_of_models_and_datasets_are_no_markup(explained):
    record = explained.record
    (scored, *_) = record.explanations
    attack = replace(
        scored, explanation={**scored.explanation, "text": "<script>alert(1)</script>"}
    )
    shown = neuron_html(replace(record, explanations=(attack,), exemplars=record.exemplars[:1]))
    assert "&lt;script&gt;alert(1)" in shown
    assert "<script" not in shown


def test_without_the_dataset_the_rest_is_there_and_it_is_said(explained, opened):
    blind = Atlas(opened.run, None).neuron(explained.layer, explained.index)
    assert blind.exemplars[0].image is None
    assert blind.exemplars[0].heat is not None
    assert "the dataset is not available" in blind._repr_html_()


@pytest.mark.parametrize(
    ("layer", "index", "said"),
    [
        (2, 0, "layer 2: this run captured the layers 1, 3"),
        (1, 512, "neuron 512 of layer 1: it has the neurons 0 to 511"),
        (3, -1, "neuron -1 of layer 3: it has the neurons 0 to 511"),
    ],
)
def test_a_neuron_that_is_not_there_is_refused(opened, layer, index, said):
    with pytest.raises(NeuronNotFoundError, match=said):
        opened.neuron(layer, index)


def test_a_table_that_is_not_there_is_refused_with_those_that_are(opened):
    with pytest.raises(AttributeError, match=r"no table 'typos'; it has concepts, "):
        _ = opened.typos


def test_a_run_of_another_version_is_read_with_a_warning_and_refused_where_it_cannot(
    opened, explained, tmp_path
):
    copied = shutil.copytree(opened.run.out, tmp_path / "old")
    for path in Atlas.open(copied).run.paths("types"):
        table = pq.read_table(path)
        names = [name.replace("share_", "p_") for name in table.column_names]
        pq.write_table(table.rename_columns(names), path)
    old = Atlas.open(copied)
    with pytest.warns(UserWarning, match=r"^types: no column share_visual, .*: another version of"):
        assert "p_visual" in old.types.collect().columns
    with pytest.raises(
        OldTableError, match=r"no column share_visual, .*Run the same command again"
    ):
        old.neuron(explained.layer, explained.index)
    assert old.scores.collect().equals(opened.scores.collect())


def test_a_manifest_names_a_dataset_and_no_other_code(opened, monkeypatch):
    for name in ("subprocess.Popen", "tasks.samples.rows.Rows", "tasks.samples_of_mine.X", ""):
        told = {"class": name, "args": "true"}
        monkeypatch.setattr(type(opened.run), "parameter", lambda *_, told=told: told)
        assert Atlas.open(opened.run.out).source is None


def manifest(mark: str) -> Manifest:
    return Manifest(
        "classify", 1, mark * 64, {}, {}, {"types": ["types.parquet"]}, {"types": 1}, {}
    )


def test_the_last_run_is_opened_unless_another_is_named(tmp_path):
    store = Store(tmp_path)
    for mark in "aba":
        store.write_run([manifest(mark)], subject="llava", dataset="scenes")
    first, last = Atlas.runs(tmp_path)
    assert last.name == Atlas.open(tmp_path).run.name
    assert [run.artifacts["types"]["fingerprint"][0] for run in (first, last)] == ["b", "a"]
    assert Atlas.open(tmp_path, run=first.name[:6]).run.artifacts == first.artifacts
    assert "llava on scenes" in str(last)


def test_each_run_knows_its_own_layers_whatever_its_folder_captured(opened, tmp_path):
    """Runs of one folder share a capture, whose manifest names the layers of all of them."""
    copied = shutil.copytree(opened.run.out, tmp_path / "runs")
    for path in (copied / "runs").glob("*.json"):
        path.unlink()
    whole = json.loads((copied / "manifest.json").read_text(encoding="utf-8"))
    for layer in LAYERS:
        artifacts = {
            name: entry | {"files": [file for file in entry["files"] if _is_of(file, layer)]}
            for name, entry in whole["artifacts"].items()
        }
        run = whole | {"artifacts": artifacts, "run": f"{layer}a", "finished": f"2026-0{layer}"}
        text = json.dumps(run)
        (copied / "runs" / f"{layer}a.json").write_text(text, encoding="utf-8")
        (copied / "manifest.json").write_text(text, encoding="utf-8")
    first, last = Atlas.runs(copied)
    assert (first.layers, last.layers) == ((1,), (3,))
    assert "layer 1, explained by dissect" in str(first)
    atlas = Atlas.open(copied)
    assert atlas.layers == (3,)
    assert atlas.neuron(3, 0).layer == 3
    said = r'layer 1: this run captured the layer 3\. The run 1a has it: .*run="1a"'
    with pytest.raises(NeuronNotFoundError, match=said):
        atlas.neuron(1, 0)
    assert Atlas.open(copied, run="1a").neuron(1, 0).layer == 1


def _is_of(file: str, layer: int) -> bool:
    return layer_of(file) in (None, layer)


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(RunNotFoundError, match="holds no finished run"):
        Atlas.open(tmp_path)
    Store(tmp_path).write_run([manifest("a")])
    (run,) = Atlas.runs(tmp_path)
    with pytest.raises(RunNotFoundError, match=f"there is no run 'zz'; there are:\n  {run.name}"):
        Atlas.open(tmp_path, run="zz")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunNotFoundError, match="is not the manifest of a run"):
        Atlas.open(tmp_path)


def test_it_reads_the_same_from_an_object_store(opened, explained, store):
    out: Path = opened.run.out
    files = [path for path in out.rglob("*") if path.suffix in (".json", ".parquet", ".arrow")]
    store.client.put(
        [str(path) for path in files],
        [f"{BUCKET}/run/{path.relative_to(out).as_posix()}" for path in files],
    )
    remote = Atlas.open(f"s3://{BUCKET}/run")
    assert remote.run.name == opened.run.name
    keys = ["layer", "neuron"]
    some = pl.col("neuron") < 9
    assert (
        remote.types.filter(some)
        .sort(keys)
        .collect()
        .equals(opened.types.filter(some).sort(keys).collect())
    )
    mine = (pl.col("layer") == explained.layer) & (pl.col("neuron") == explained.index)
    rows = remote.evidence.filter(mine).collect()
    assert len(rows) > TOP_N
    assert rows.equals(opened.evidence.filter(mine).collect())
    same = remote.neuron(explained.layer, explained.index)
    assert same.explanations.equals(explained.explanations)
    assert same._repr_html_() == explained._repr_html_()
