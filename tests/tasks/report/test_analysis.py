"""The analysis as the report shows it: figures, the page's table, CSV."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from neuron_atlas.tasks.analyse.summary import summarize_types
from neuron_atlas.tasks.artifacts import NEURON_TESTS, RESPONSES, write_table
from neuron_atlas.tasks.report.analysis import Analysis, read_analysis, write_analysis
from neuron_atlas.tasks.report.analysis_figures import (
    draw_agreement,
    draw_densities,
    draw_responses,
    draw_share_intervals,
)
from neuron_atlas.tasks.report.canvas import svg_text
from neuron_atlas.tasks.report.figures import draw_figures, write_figures
from neuron_atlas.tasks.report.page import write_page
from tests.tasks.report.rendering import Outline, inputs, squeeze
from tests.tasks.report.synthetic import neuron_types, scores

KINDS = [("visual", "visual"), ("text", "text"), ("text", "multi-modal"), ("unknown", "silent")]
TYPES = neuron_types(
    *(
        {"layer": layer, "neuron": neuron, "type": kind}
        for layer in (0, 4)
        for neuron, (kind, _) in enumerate(KINDS)
    )
)
DRAWN = (draw_share_intervals, draw_agreement, draw_densities, draw_responses)


def analysis_of(types: pa.Table, folder: Path, tested: bool = True) -> Analysis:
    rows = [
        {"layer": row["layer"], "neuron": row["neuron"], "type_tested": KINDS[row["neuron"]][1]}
        | {
            "positive_visual": 0.1 * row["neuron"],
            "positive_text": 0.5,
            "concentration": 0.25,
            "monosemanticity": 0.8,
            "meanings": 2,
        }
        | {"top_words": ["<b>dog", "cup"][: row["neuron"]], "same_concept": row["neuron"] == 2}
        for row in types.select(["layer", "neuron"]).to_pylist()
    ]
    by_tests = pa.Table.from_pylist(rows, schema=NEURON_TESTS.schema) if tested else None
    responses = pa.Table.from_pylist(rows, schema=RESPONSES.schema)
    made = [(RESPONSES, responses), *summarize_types(types, by_tests, responses, 5)]
    made += [(NEURON_TESTS, by_tests)] if by_tests is not None else []
    for spec, table in made:
        write_table(table, spec, folder / f"{spec.name}.parquet")
    return read_analysis({spec.name: [folder / f"{spec.name}.parquet"] for spec, _ in made}, types)


@pytest.fixture
def analysis(tmp_path: Path) -> Analysis:
    return analysis_of(TYPES, tmp_path)


def words(figure) -> list[str]:
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return [text.get_text() for text in texts]


def test_densities_are_of_every_neuron_with_its_type_by_tests(analysis):
    assert sorted(analysis.densities["type"].unique()) == [
        "multi-modal",
        "silent",
        "text",
        "visual",
    ]
    assert analysis.densities.filter(type="multi-modal")["positive_visual"].to_list() == [0.2, 0.2]


def test_without_tests_the_types_are_the_papers_and_there_is_no_agreement_to_show(tmp_path):
    alone = analysis_of(TYPES, tmp_path, tested=False)
    assert alone.rules == ["paper"]
    assert set(alone.densities["type"].unique()) == {"visual", "text", "unknown"}
    names = [one.name for one in draw_figures(TYPES, scores(), alone)]
    assert "agreement" not in names
    assert "share_intervals" in names
    assert any("rule alone" in text for text in words(draw_agreement(alone, "T")))


def test_the_share_of_every_layer_is_drawn_with_its_interval(analysis):
    paper, tested = draw_share_intervals(analysis, "T").axes
    assert [label.get_text() for label in paper.get_xticklabels()] == ["0", "4"]
    drawn = {line.get_color(): line.get_ydata().tolist() for line in paper.lines}
    assert sorted(map(tuple, drawn.values())) == [(0.25, 0.25), (0.25, 0.25), (0.5, 0.5)]
    assert len(tested.lines) == 4
    (low, high) = paper.collections[1].get_segments()[0][:, 1]
    row = analysis.shares.filter(rule="paper", layer=0, type="visual").to_dicts()[0]
    assert (low, high) == pytest.approx((row["ci_low"], row["ci_high"]))


def test_the_agreement_says_every_count_and_kappa(analysis):
    figure = draw_agreement(analysis, "T")
    said = words(figure)
    kappa = analysis.kappa["kappa"][0]
    assert any(f"kappa {kappa:.2f}" in text and "8 neurons" in text for text in said)
    assert said.count("2") == 4
    assert said.count("50 %") == 2
    assert said.count("0") == 16


def test_silent_neurons_are_left_out_where_types_are_compared(analysis):
    for axes in draw_responses(analysis, "T").axes:
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            "visual",
            "text",
            "multi-modal",
        ]
    assert "silent" not in words(draw_densities(analysis, "T"))


@pytest.mark.parametrize("draw", DRAWN)
def test_a_figure_without_neurons_says_so(draw, tmp_path):
    nothing = analysis_of(neuron_types(), tmp_path)
    assert len(words(draw(nothing, "T"))) == 2
    assert svg_text(draw(nothing, "T")).startswith("<svg")


@pytest.mark.parametrize("draw", DRAWN)
def test_a_figure_follows_the_readers_light_or_dark(draw, analysis):
    svg = svg_text(draw(analysis, "T"))
    assert "var(--text, " in svg
    assert "var(--ink, " in svg


def test_figures_and_tables_are_saved(analysis, tmp_path):
    written = write_figures(tmp_path / "figures", draw_figures(TYPES, scores(), analysis))
    assert {path.stem for path in written} >= {"agreement", "activation_density", "responses"}
    write_analysis(tmp_path / "tables", analysis)
    shares = pl.read_csv(tmp_path / "tables" / "type_shares.csv")
    assert shares.filter(rule="tested", layer=-1, type="silent")["n"].to_list() == [2]
    assert len(list((tmp_path / "tables").glob("*.csv"))) == 6


def test_the_page_tells_how_each_type_responds_and_escapes_words(analysis, tmp_path):
    path = write_page(tmp_path / "page", inputs(analysis=analysis))
    text = path.read_text(encoding="utf-8")
    page = squeeze(Outline(text).words)
    assert "Multi-modal tests 2 25 %" in page
    assert "20 % 50 % 0.25 0.80 2 2 of 2 <b>dog" in page
    assert "&lt;b&gt;dog" in text
    assert "Cohen" not in page  # That is in a picture.


def test_a_page_without_an_analysis_has_no_empty_table_of_it(tmp_path):
    text = write_page(tmp_path / "page", inputs()).read_text(encoding="utf-8")
    assert "How the types respond" not in text
