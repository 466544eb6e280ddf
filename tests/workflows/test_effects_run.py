"""A run with effects: its tables, page, metrics and neurons; a run without has none of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from neuron_atlas.tasks.atlas import Atlas
from neuron_atlas.tasks.atlas.export import export
from neuron_atlas.workflows.tracking.metrics import summary_metrics
from tests.workflows.runs import LAYERS, small_run

pytestmark = pytest.mark.slow
FEW = (
    "effects=all", "effects.samples=40", "effects.output_tokens=4", "effects.ablations=8",
    "effects.ablation_samples=5", "effects.faithful_neurons=8", "effects.faithful_samples=8",
    "report.site.write=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def opened(first_run, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    out = tmp_path_factory.mktemp("effects") / "out"
    shutil.copytree(first_run.store.out, out)
    small_run(out, *FEW)
    return Atlas.open(out)


def report_of(atlas: Atlas) -> Path:
    (page,) = (path for path in atlas.run.paths("report") if path.name == "index.html")
    return page.parent


def test_every_neuron_has_an_effect_and_output_tokens(opened):
    effects, tokens = opened.effects.collect(), opened.output_tokens.collect()
    assert effects.height == tokens.height == len(LAYERS) * 512
    assert set(effects["status"]) == {"ok"}
    assert set(effects["n_samples"]) == {40}
    parts = effects.select(pl.sum_horizontal(f"effect_{r}" for r in ("visual", "text", "template")))
    np.testing.assert_allclose(parts.to_series(), effects["effect"], rtol=1e-3, atol=1e-8)
    assert set(tokens.filter(status="ok")["promoted"].list.len()) == {4}
    last = effects.filter(layer=LAYERS[-1])
    assert last["magnitude_visual"].max() == 0


def test_chosen_neurons_are_ablated_and_the_attribution_follows(opened):
    rows = opened.ablations.collect()
    assert rows.height == 8 * 2 * 5
    assert rows.select("layer", "neuron").unique().height == 8
    means = rows.group_by("layer", "neuron", "set_to").agg(pl.col("change", "first_order").mean())
    assert np.corrcoef(means["change"], means["first_order"])[0, 1] > 0.5


def test_every_explanation_has_a_row_of_faithfulness(opened):
    rows = opened.faithfulness.collect()
    explained = opened.explanations.select("layer", "neuron").collect()
    assert (
        rows.select("layer", "neuron")
        .sort("layer", "neuron")
        .equals(explained.sort("layer", "neuron"))
    )
    tested = rows.filter(status="ok")
    assert 0 < tested.height <= 8
    assert tested["q"].is_not_null().all()


def test_page_site_neuron_and_metrics_show_them(opened):
    folder = report_of(opened)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "What neurons do" in page
    assert "Promotes" in page
    assert (folder / "figures" / "attribution_check.png").exists()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    names = {name for name, _, _ in summary_metrics(summary)}
    assert "effects/attribution_correlation" in names
    neuron = opened.neuron(LAYERS[0], 0)
    assert neuron.effects.height == neuron.output_tokens.height == 1
    assert "Promotes" in neuron._repr_html_()
    chunks = [path.read_text(encoding="utf-8") for path in folder.glob("site/data/neurons/**/*.js")]
    assert chunks
    assert all('"promoted"' in chunk for chunk in chunks)


def test_the_export_holds_what_neurons_do(opened, tmp_path):
    written = export(opened, tmp_path / "export")
    rows = {one.name: one.rows for one in written}
    assert rows["effects"] == rows["output_tokens"] == len(LAYERS) * 512
    assert rows["faithfulness"] == opened.faithfulness.select(pl.len()).collect().item()
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    causal = card.partition("(`causal_type` in `effects`")[2].splitlines()
    counts = opened.types.join(opened.effects, on=["layer", "neuron"]).group_by("type").len()
    for name, count in counts.collect().iter_rows():
        row = next(line for line in causal if line.startswith(f"| {name} |"))
        cells = [int(cell.replace(",", "")) for cell in row.split("|")[2:-2]]
        assert sum(cells) == count


def test_the_rows_are_the_same_with_two_actors_and_another_batch_size(opened, first_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(first_run.store.out, out)
    small_run(out, *FEW, "report.site.write=false", "effects.batch_size=5", "cluster.actors=2")
    other = Atlas.open(out)
    for name in ("effects", "output_tokens"):
        mine, theirs = (one.table(name).collect() for one in (opened, other))
        numbers = [c for c in mine.columns if mine[c].dtype in (pl.Float32, pl.Float64)]
        for column in numbers:
            np.testing.assert_allclose(
                mine[column].to_numpy(), theirs[column].to_numpy(), rtol=0.02, atol=1e-6
            )
    assert opened.ablations.collect().height == other.ablations.collect().height


def test_a_run_without_effects_has_no_tables_of_them(first_run):
    tables = Atlas.open(first_run.store.out).tables
    assert not {"effects", "output_tokens", "ablations", "faithfulness"} & set(tables)
