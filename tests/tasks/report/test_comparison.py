"""The jobs of a sweep side by side: table, figures, page."""

from __future__ import annotations

import html
import re
from typing import Any

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import ALL_LAYERS, SCORE_AGGREGATES, TYPE_SHARES, TYPES
from neuron_atlas.tasks.report.comparison import JobTables, compare_jobs
from neuron_atlas.tasks.report.comparison_figures import draw_comparison
from neuron_atlas.tasks.report.comparison_page import write_comparison_page


def blank(schema: pa.Schema) -> dict[str, Any]:
    return {field.name: "" if pa.types.is_string(field.type) else 0 for field in schema}


def shares(layer: int, *of_types: float) -> pa.Table:
    rows = [
        blank(TYPE_SHARES.schema)
        | {"rule": rule, "layer": at, "type": kind, "share": share, "total": 100}
        for rule, off in (("paper", 0.0), ("tested", 0.5))
        for at in (layer, ALL_LAYERS)
        for kind, share in zip(TYPES, [one + off for one in of_types], strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=TYPE_SHARES.schema)


def aggregates(layer: int, correlation: float, control: float, explainer: str) -> pa.Table:
    rows = [
        blank(SCORE_AGGREGATES.schema)
        | {"explainer": explainer, "simulator": "concept", "tokens": tokens}
        | {"by": by, "group": group, "measure": measure, "n": 30, "mean": mean + off}
        | {"ci_low": mean - 0.1, "ci_high": mean + 0.1, "median": mean, "max_q": 0.05}
        for tokens, off in (("all", 0.0), ("visual", 9.0))
        for by, group in (("all", ""), ("layer", str(layer)), ("type", "text"))
        for measure, mean in (("correlation", correlation), ("control_other", control))
    ]
    return pa.Table.from_pylist(rows, schema=SCORE_AGGREGATES.schema)


def job(layer: int, correlation: float, setting: str = "", explainer: str = "dissect") -> JobTables:
    choices = {"capture.layers": str(layer)}
    return JobTables(
        name=f"capture.layers={layer} {setting}".strip(),
        setting=setting,
        choices=choices,
        shares=shares(layer, 0.1, 0.2, 0.3, 0.4),
        aggregates=aggregates(layer, correlation, 0.05, explainer),
        page=f"../../artifacts/report/{layer}/index.html",
    )


def with_blind(one: JobTables, mean: float) -> JobTables:
    """Add the control without an explanation to a job."""
    rows = one.aggregates.to_pylist()
    rows += [
        row | {"measure": "control_blind", "mean": mean, "ci_high": mean + 0.1}
        for row in rows
        if row["measure"] == "control_other" and row["tokens"] == "all"
    ]
    table = pa.Table.from_pylist(rows, schema=SCORE_AGGREGATES.schema)
    return JobTables(**(vars(one) | {"aggregates": table}))


def test_a_job_has_a_row_for_each_layer_and_one_for_all():
    rows = compare_jobs([job(0, 0.5), job(8, 0.25)]).to_dicts()
    assert [(row["job"], row["layer"]) for row in rows] == [
        ("capture.layers=0", 0),
        ("capture.layers=0", None),
        ("capture.layers=8", 8),
        ("capture.layers=8", None),
    ]
    first = rows[0]
    assert [first[f"{kind}_share"] for kind in TYPES] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert (first["neurons"], first["scored"]) == (100, 30)
    assert first["correlation"] == 0.5
    assert (first["correlation_low"], first["correlation_high"]) == pytest.approx((0.4, 0.6))
    assert first["correlation_of_control"] == pytest.approx(0.05)
    assert first["share_that_beat_control"] is None
    assert rows[2]["correlation"] == 0.25


def test_each_row_names_its_strongest_control():
    rows = compare_jobs([with_blind(job(0, 0.3), 0.4), job(1, 0.3)]).to_dicts()
    assert [row["strongest_control"] for row in rows[::2]] == [
        "a prediction without an explanation",
        "another neuron\N{RIGHT SINGLE QUOTATION MARK}s explanation",
    ]
    assert [row["correlation_of_control"] for row in rows[::2]] == pytest.approx([0.4, 0.05])
    assert rows[0]["correlation_of_control_high"] == pytest.approx(0.5)
    assert rows[0]["correlation_of_other_explanation"] == pytest.approx(0.05)
    assert rows[0]["correlation_without_explanation"] == pytest.approx(0.4)


def test_score_and_all_controls_share_one_axis_by_layer():
    jobs = [with_blind(job(layer, 0.3), 0.4) for layer in (0, 4)]
    _, scores = draw_comparison(compare_jobs(jobs))
    (axes,) = scores.figure.axes
    drawn = [list(line.get_ydata()) for line in axes.lines[1:]]
    assert drawn == [pytest.approx([value] * 2) for value in (0.3, 0.05, 0.4)]
    said = [text.get_text() for text in scores.figure.texts]
    assert "control: a prediction without an explanation" in said


def test_a_layer_without_scores_keeps_its_types():
    bare = job(0, 0.5)
    bare = JobTables(**(vars(bare) | {"aggregates": SCORE_AGGREGATES.schema.empty_table()}))
    rows = compare_jobs([bare, job(1, 0.5)]).to_dicts()
    assert [row["correlation"] for row in rows] == [None, None, 0.5, 0.5]
    assert rows[0]["visual_share"] == pytest.approx(0.1)


def test_figures_have_a_panel_for_each_setting_and_a_place_for_each_layer():
    jobs = [job(layer, 0.5, f"capture.top_n={n}") for n in (20, 50) for layer in (0, 4, 8)]
    types, scores = draw_comparison(compare_jobs(jobs))
    for one in (types, scores):
        panels = one.figure.axes
        assert len(panels) == 2
        assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ["0", "4", "8"]
        assert panels[1].get_title(loc="left").startswith("capture.top_n=50")
    heights = [bar.get_height() for bar in types.figure.axes[0].patches]
    assert heights == pytest.approx([share for share in (0.1, 0.2, 0.3, 0.4) for _ in range(3)])
    drawn = scores.figure.axes[0].lines
    assert list(drawn[1].get_ydata()) == [0.5, 0.5, 0.5]
    assert list(drawn[2].get_ydata()) == pytest.approx([0.05] * 3)


def test_without_a_score_the_figure_says_so():
    bare = JobTables(**(vars(job(0, 0.5)) | {"aggregates": SCORE_AGGREGATES.schema.empty_table()}))
    _, scores = draw_comparison(compare_jobs([bare]))
    assert "No job has a score." in [text.get_text() for text in scores.figure.texts]


def test_the_page_links_every_job_tells_of_failures_and_escapes_what_it_shows(tmp_path):
    failed = {"capture.layers=9": "no layer <9>"}
    names, columns = write_comparison_page(tmp_path, "sweep <of> layers", [job(0, 0.512)], failed)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="../../artifacts/report/0/index.html"' in page
    # MLflow keeps this page without those that it leads to; there they are elsewhere.
    assert re.search(r"In MLflow, find that page as\s+<code>report/index\.html</code>", page)
    assert "0.512" in page
    named = re.search(r'0\.050<br><span class="quiet" title="([^"]+)">([^<]+)</span>', page)
    assert named is not None
    assert html.unescape(named[1]) == "another neuron\N{RIGHT SINGLE QUOTATION MARK}s explanation"
    assert named[2] == "other neuron"
    assert "no layer &lt;9&gt;" in page
    assert "sweep &lt;of&gt; layers" in page
    assert "<of>" not in page
    assert page.count("<svg") == 2
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"types.png", "scores.png"}
    assert columns["layer"] == [0, None]
    assert all((tmp_path / name).is_file() for name in names)
    assert (tmp_path / "comparison.csv").read_text(encoding="utf-8").count("\n") == 3
