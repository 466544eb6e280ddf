"""What the page, the site and MLflow show of the meanings of neurons, from planted tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    MEANING_EXPLANATIONS,
    MEANING_SCORES,
    MEANINGS,
    layer_file,
    write_table,
)
from neuron_atlas.tasks.report.inputs import files_of_layer
from neuron_atlas.tasks.report.meanings import (
    meanings_metrics,
    read_meanings,
    summarize_meanings,
)
from tests.tasks.report.rendering import inputs, squeeze
from tests.tasks.report.synthetic import aggregates

SCORES = {  # By explainer, neuron and meaning: score, that of the whole neuron, and lower bound.
    ("chat", 4, 1): (0.8, 0.2, 0.5),
    ("chat", 4, 2): (0.4, 0.2, -0.1),
    ("chat", 6, 1): (None, None, None),
    ("dissect", 4, 1): (0.6, 0.6, -0.2),
    ("dissect", 4, 2): (0.6, 0.6, -0.2),
}


@pytest.fixture
def tables(tmp_path: Path) -> Mapping[str, Sequence[Path]]:
    named = [
        {"layer": 1, "explainer": explainer, "neuron": neuron, "meaning": meaning}
        | {"simulator": "concept", "correlation": score, "whole": whole, "gain_low": low}
        | {"gain": None if score is None else score - whole}
        | {"status": "no_variance" if score is None else "ok", "reason": "", "n_exemplars": 5}
        | {"text": f"{explainer} on {meaning}"}
        for (explainer, neuron, meaning), (score, whole, low) in SCORES.items()
    ]
    members = [
        {"layer": 1, "neuron": neuron, "sample_id": sample_id, "meaning": sample_id % 2 + 1}
        for neuron in (4, 6)
        for sample_id in range(10)
    ]
    found = {}
    explained = [row | {"status": "ok"} for row in named]
    planted = ((MEANINGS, members), (MEANING_EXPLANATIONS, explained), (MEANING_SCORES, named))
    for spec, rows in planted:
        path = tmp_path / layer_file(spec, 1)
        full = [{name: row.get(name) for name in spec.schema.names} for row in rows]
        write_table(pa.Table.from_pylist(full, spec.schema), spec, path)
        found[spec.name] = [path]
    return found


def test_means_are_by_explainer(tables):
    chat, dissect = summarize_meanings(tables)
    assert (chat["explainer"], chat["neurons"], chat["meanings"]) == ("chat", 2, 2)
    assert (chat["mean"], chat["whole"], chat["gain"]) == pytest.approx((0.6, 0.2, 0.4))
    assert (chat["better"], dissect["better"]) == (0.5, 0)
    assert (dissect["neurons"], dissect["meanings"]) == (1, 2)


def test_metrics_are_over_all_explainers(tables):
    assert meanings_metrics(tables) == pytest.approx(
        {"neurons": 2, "score": 0.6, "score_of_whole": 0.4, "gain": 0.2}
    )


def test_a_run_without_meanings_has_neither():
    assert summarize_meanings({}) == []
    assert meanings_metrics({}) == {}


def test_a_meaning_has_its_text_its_exemplars_and_its_scores(tables):
    found = read_meanings(files_of_layer(1, tables), [4, 5])
    assert set(found) == {4}
    assert [one["text"] for one in found[4]["chat"]] == ["chat on 1", "chat on 2"]
    for one in found[4]["chat"]:
        assert one["sample_ids"] == list(range(one["meaning"] - 1, 10, 2))
        ((score, whole),) = [(row["correlation"], row["whole"]) for row in one["scores"]]
        assert (score, whole) == pytest.approx(SCORES["chat", 4, one["meaning"]][:2])


def test_the_page_says_how_many_neurons_have_several_and_what_is_gained(tables, render):
    scored = inputs(aggregates=aggregates({}))
    several = replace(scored, several=summarize_meanings(tables))
    words = squeeze(render(several)[1].words)
    assert "chat, simulated by concept: 2 explained neurons have several meanings" in words
    assert "The 2 meanings with a score have a mean of 0.60" in words
    assert "50 % of the meanings are explained better for certain" in words
    assert "explained neurons have several" not in squeeze(render(scored)[1].words)
