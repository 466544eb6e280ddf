"""The overview of effects: causal types, the check of the attribution, and faithfulness."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    ABLATIONS,
    EFFECTS,
    FAITHFULNESS,
    OUTPUT_TOKENS,
    TableSpec,
    write_table,
)
from neuron_atlas.tasks.report.effects import EffectsSummary, read_effects
from neuron_atlas.tasks.report.figures import draw_figures
from neuron_atlas.tasks.report.pages import template_environment
from neuron_atlas.tasks.report.record import gather_records
from neuron_atlas.tasks.report.site.facts import neuron_facts
from neuron_atlas.tasks.report.site.neurons import _describe
from tests.tasks.report.synthetic import (
    catalog,
    explanations,
    neuron_types,
    scores,
    traces,
)

NEURONS = 12


def table(spec: TableSpec, *rows: dict[str, Any]) -> pa.Table:
    empty = dict.fromkeys(spec.schema.names)
    if spec.statuses:
        empty |= {"status": "ok", "reason": ""}
    return pa.Table.from_pylist([empty | row for row in rows], schema=spec.schema)


def faithful(neuron: int, value: float | None = None, q: float | None = None) -> dict[str, Any]:
    return {
        "layer": neuron % 2, "neuron": neuron, "explainer": "dissect", "words": ["red"],
        "words_from": "explanation", "own_change": value, "other_change": 0.0,
        "faithfulness": value, "p": q, "q": q, "n_samples": 8, "agreement": 0.8,
        "agreement_other": 0.5, "status": "not_ablated" if value is None else "ok",
    }  # fmt: skip


def effect(neuron: int, causal: str = "text") -> dict[str, Any]:
    return {
        "layer": neuron % 2, "neuron": neuron, "effect": 0.01 * neuron, "effect_low": 0.001,
        "effect_high": 0.2, "q": 0.01 if neuron else 0.5, "causal_type": causal,
        **{f"effect_{role}": 0.01 for role in ("visual", "text", "template")},
    }  # fmt: skip


@pytest.fixture
def types() -> pa.Table:
    return neuron_types(
        *(
            {"layer": one % 2, "neuron": one, "type": "visual" if one < 6 else "text"}
            for one in range(NEURONS)
        )
    )


@pytest.fixture
def summary(types: pa.Table, tmp_path: Path) -> EffectsSummary:
    rng = np.random.default_rng(0)
    ablations = [
        {
            "layer": one % 2, "neuron": one, "set_to": set_to, "sample_id": sample_id,
            # Layer 0 is twice the attribution, layer 1 has nothing to do with it.
            "change": 2 * one if one % 2 == 0 else rng.normal(), "first_order": float(one),
            "token_changes": [],
        }
        for one in range(NEURONS)
        for set_to in ("zero", "mean")
        for sample_id in range(2)
    ]  # fmt: skip
    given = {
        EFFECTS: [effect(one, "visual" if one < 3 else "text") for one in range(NEURONS)],
        ABLATIONS: ablations,
        FAITHFULNESS: [faithful(0, 0.3, 0.01), faithful(1, 0.1, 0.9), faithful(2)],
    }
    paths = {}
    for spec, rows in given.items():
        paths[spec.name] = [tmp_path / f"{spec.name}.parquet"]
        write_table(table(spec, *rows), spec, paths[spec.name][0])
    found = read_effects(paths, types, 0.05)
    assert found is not None
    return found


def test_a_run_without_effects_has_none(types):
    assert read_effects({"effects": ()}, types, 0.05) is None


def test_types_are_counted_by_causal_type(summary):
    visual, text = summary.causal_types()
    assert (visual["type"], visual["n"], visual["counts"]["visual"]) == ("visual", 6, 3)
    assert (text["counts"]["text"], text["counts"]["none"]) == (6, 0)


def test_the_check_says_where_the_attribution_is_not_to_be_trusted(summary):
    rows = {row["group"]: row for row in summary.checks()}
    assert rows["layer 0"]["correlation"] == pytest.approx(1)
    assert rows["layer 0"]["slope"] == pytest.approx(2)
    assert rows["layer 0"]["is_trusted"]
    assert rows["layer 1"]["is_trusted"] is False
    assert rows["all neurons"]["n"] == NEURONS
    assert rows["larger activations"]["is_trusted"] is None


def test_faithful_explanations_are_counted_at_the_level(summary):
    (row,) = summary.faithful()
    assert (row["tested"], row["faithful"]) == (2, 1)
    assert row["mean"] == pytest.approx(0.2)
    metrics = summary.metrics()
    assert metrics["explanations_faithful"] == 1
    assert metrics["share_with_effect"] == pytest.approx(11 / 12)
    assert metrics["agreement"] == pytest.approx(0.8)


def test_the_figures_have_data_and_their_numbers_are_a_table_of_the_page(summary, types):
    figures = {one.name: one for one in draw_figures(types, scores(), None, summary)}
    assert "<svg" in figures["effects"].svg
    assert "<svg" in figures["attribution_check"].svg
    causal = ("visual", "text", "multi-modal", "template", "none")
    page = (
        template_environment()
        .from_string('{% from "neuron.html" import interval_term %}{% include "effects.html" %}')
        .render(effects=summary, causal_types=causal)
    )
    assert "do not trust the attribution here" in page
    assert "<b>1</b> of 2 tested explanations are faithful" in page


def test_a_neuron_shows_what_it_writes_and_how_faithful_its_explanation_is(types):
    tables = {
        "types": types.slice(0, 1),
        "explanations": explanations({"layer": 0, "neuron": 0}),
        "scores": scores(),
        "evidence": traces(),
        "effects": table(EFFECTS, effect(0)),
        "output_tokens": table(
            OUTPUT_TOKENS,
            {"layer": 0, "neuron": 0, "promoted": [" red", "<b>"], "suppressed": [" blue"]},
        ),
        "faithfulness": table(FAITHFULNESS, faithful(0, 0.3, 0.01)),
    }
    (record,) = gather_records(tables, {}, catalog()).values()
    facts = neuron_facts(record)
    assert facts["output"]["promoted"] == [" red", "<b>"]
    assert facts["effect"]["type"] == "text"
    described = _describe(record, (), (), {})["explanations"][0]["faithful"]
    assert described["faithfulness"] == pytest.approx(0.3)
    macros = template_environment().get_template("neuron.html").module
    html = macros.neuron_entry(record, [])
    assert "&lt;b&gt;" in html
    assert "<b>red</b>" in html
    assert "Faithfulness" in html
