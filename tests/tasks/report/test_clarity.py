"""Clarity and redundancy on the overview page, from planted tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import NEIGHBORS, SEARCH_VECTORS, write_table
from neuron_atlas.tasks.report.clarity import ClaritySummary, read_clarity, write_clarity
from tests.tasks.report.rendering import inputs, squeeze
from tests.tasks.report.synthetic import neuron_types


@pytest.fixture
def summary(tmp_path: Path) -> ClaritySummary:
    """Neurons 0 to 9; those of layer 1 are twice as clear, those of layer 0 have no text."""
    types = neuron_types(
        *({"layer": one % 2, "neuron": one, "type": "text" if one % 2 else "visual"}
          for one in range(10))
    )  # fmt: skip
    rows = [
        {"layer": one % 2, "neuron": one, "role": role, "clarity": (one % 2 + 1) / 4,
         "redundancy": one / 10}
        for one in range(10)
        for role in ("visual", "text")[: 1 + one % 2]
    ]  # fmt: skip
    tables = {}
    for spec in (SEARCH_VECTORS, NEIGHBORS):
        path = tmp_path / f"{spec.name}.parquet"
        full = [
            dict.fromkeys(spec.schema.names)
            | {name: value for name, value in row.items() if name in spec.schema.names}
            for row in rows
        ]
        write_table(pa.Table.from_pylist(full, spec.schema), spec, path)
        tables[spec.name] = [path]
    found = read_clarity(tables, types)
    assert found is not None
    return found


def test_measures_are_by_all_type_and_layer(summary):
    rows = {(row["by"], row["group"]): row for row in summary.rows()}
    assert list(rows) == [
        ("all", ""), ("type", "visual"), ("type", "text"), ("layer", 0), ("layer", 1),
    ]  # fmt: skip
    assert rows["layer", 0]["clarity_visual"]["p50"] == 0.25
    assert rows["type", "text"]["clarity_text"]["p50"] == 0.5
    assert rows["layer", 0]["clarity_text"] is None
    assert rows["layer", 1]["redundancy_text"]["mean"] == pytest.approx(0.5)
    assert rows["all", ""]["clarity_visual"]["n"] == 10


def test_metrics_are_means_over_all_neurons(summary):
    assert summary.metrics() == pytest.approx(
        {
            "clarity_visual": 0.375,
            "clarity_text": 0.5,
            "redundancy_visual": 0.45,
            "redundancy_text": 0.5,
        }
    )


def test_the_page_and_a_file_show_them(summary, render, tmp_path):
    words = squeeze(render(replace(inputs(), clarity=summary))[1].words)
    assert "Clear and redundant neurons" in words
    assert "Layer 0 0.25 0.25 to 0.25 \N{EN DASH} 0.40" in words
    assert "Clear and redundant" not in squeeze(render(inputs())[1].words)
    write_clarity(tmp_path, summary)
    assert (tmp_path / "clarity.csv").read_text().startswith("measure,role,layer,type,n,mean")


def test_a_run_without_vectors_has_none():
    assert read_clarity({"neighbors": []}, neuron_types()) is None
