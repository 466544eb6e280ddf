"""Columns of the site's table for runs that measured effects."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from bench.synthetic.atlas import SyntheticAtlas, write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import EFFECTS, FAITHFULNESS, TableSpec, layer_file, write_table
from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES
from tests.tasks.report.site.browsing import Visit, chromium
from tests.tasks.report.site.reading import numbers, value, write

NEURONS = 8


def with_effects(folder: Path) -> SyntheticAtlas:
    """One layer; neuron n has the effect n / 10, but neuron 3 none. Neuron 2 is faithful."""
    made = write_synthetic_atlas(folder, Sizes(layers=(1,), neurons=NEURONS, samples=6))
    effects = [
        {
            "neuron": one,
            "effect": one / 10,
            "causal_type": "text" if one else "none",
            "status": "ok",
        }
        for one in range(NEURONS)
    ]
    effects[3] |= {"effect": None, "causal_type": None, "status": "too_few_samples"}
    tested = [
        {"neuron": one, "explainer": explainer, "faithfulness": 0.01 * one, "q": q, "status": "ok"}
        for explainer, one, q in (("gpt4o", 1, 0.5), ("gpt4o", 2, 0.05), ("dissect", 4, None))
    ]
    (layer,) = made.layers
    tables = dict(layer.tables)
    for spec, rows in ((EFFECTS, effects), (FAITHFULNESS, tested)):
        tables[spec.name] = (_written(folder, spec, rows),)
    return replace(made, layers=(replace(layer, tables=tables),))


def _written(folder: Path, spec: TableSpec, rows: list[dict]) -> Path:
    path = folder / layer_file(spec, 1)
    empty = dict.fromkeys(spec.schema.names) | {"layer": 1, "reason": ""}
    write_table(pa.Table.from_pylist([empty | row for row in rows], spec.schema), spec, path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    made = with_effects(tmp_path_factory.mktemp("tables"))
    site = write(made, tmp_path_factory.mktemp("report") / "site")
    (site.parent / "index.html").write_text("<!doctype html><title>overview</title>")
    return site.parent


def test_effects_and_faithfulness_stand_in_the_order_of_neurons(root):
    site = root / "site"
    assert value(site, "index")["extra"] == ["effect", "faithful"]
    table = value(site, "table/1")
    effect = numbers(table["effect"], "<f4").tolist()
    assert math.isnan(effect.pop(3))
    assert effect == pytest.approx([one / 10 for one in range(NEURONS) if one != 3])
    names = [*CAUSAL_TYPES, ""]
    causal = [names[code] for code in numbers(table["causal"], "u1")]
    assert causal == ["none", "text", "text", "", "text", "text", "text", "text"]
    scores = value(site, "scores/0/1")
    assert numbers(scores["faithful"], "u1").tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert numbers(scores["faithfulness"], "<f4")[[1, 2]].tolist() == pytest.approx([0.01, 0.02])
    other = value(site, "scores/1/1")
    assert numbers(other["faithful"], "u1").sum() == 0
    assert [math.isnan(one) for one in numbers(other["faithfulness"], "<f4")].count(False) == 1


def test_a_run_without_effects_has_no_column_of_them(site):
    assert value(site, "index")["extra"] == []
    assert "effect" not in value(site, "table/0")
    assert "faithful" not in value(site, "scores/0/0")


@pytest.mark.browser
def test_the_table_sorts_by_effect_and_by_faithfulness(root):
    with chromium() as browser:
        visit = Visit(browser, f"{root.as_uri()}/").open("#/neurons?sort=-effect")
        cells = visit.cells(10)
        assert [cell.split("\n")[0] for cell in cells] == [
            "0.700", "0.600", "0.500", "0.400", "0.200", "0.100", "0.00", "\N{EN DASH}",
        ]  # fmt: skip
        assert cells[0].split("\n")[1] == "by text"
        visit.page.get_by_role("button", name="Faithful", exact=True).click()
        visit.settled()
        assert visit.cells(11)[:3] == ["0.0200", "0.0100", "\N{EN DASH}"]
        assert visit.page.locator(".canvas .beats").last.is_visible()
        visit.close()
        assert visit.problems == []
