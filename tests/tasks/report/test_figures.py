import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.patches import StepPatch
from PIL import Image

from neuron_atlas.tasks.artifacts import SCORES, TYPES
from neuron_atlas.tasks.report.figures import draw_figures, write_figures
from neuron_atlas.tasks.report.score_figure import draw_scores
from neuron_atlas.tasks.report.type_figures import draw_types_by_layer, draw_visual_against_text
from tests.tasks.report.synthetic import every_type, neuron_types, scores


def words(figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
    return [text for text in found if text]


def rectangles(figure) -> dict[str, list[list[float]]]:
    """Left, bottom, right, top of every drawn piece of a square, by type."""
    outlines = {patch.get_label(): patch.get_path().vertices for patch in figure.axes[0].patches}
    return {
        name: [
            [*corners.min(axis=0), *corners.max(axis=0)]
            for corners in outlines[name].reshape(-1, 5, 2)
        ]
        for name in TYPES
        if name in outlines
    }


def score_rows(values, control=0.0, **more):
    return scores(
        *(
            {"layer": 0, "neuron": i, "correlation": v, "control_other": control} | more
            for i, v in enumerate(values)
        )
    )


def test_figures_are_saved_in_both_formats_and_open(tmp_path):
    paths = write_figures(tmp_path / "figures", draw_figures(every_type(), score_rows([0.5, 0.6])))
    names = ["types_by_layer", "visual_against_text", "scores"]
    assert [path.name for path in paths] == [f"{n}.{f}" for n in names for f in ("png", "svg")]
    for path in paths:
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("L"))
            assert pixels.std() > 5
        else:
            assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")


def test_the_same_tables_give_the_same_files_and_leave_matplotlib_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    once, again = (
        [
            path.read_bytes()
            for path in write_figures(
                tmp_path / name, draw_figures(every_type(), score_rows([0.5]))
            )
        ]
        for name in ("once", "again")
    )
    assert once == again
    assert dict(matplotlib.rcParams) == before


def test_figures_without_data_say_why(tmp_path):
    nothing = neuron_types()
    assert "No neuron was classified." in words(draw_types_by_layer(nothing, "T"))
    dead = neuron_types({"layer": 0, "neuron": 0, "type": "unknown", "n_exemplars": 0})
    assert "No neuron with an exemplar was classified." in words(
        draw_visual_against_text(dead, "T")
    )
    assert "No explanation was scored." in words(draw_scores(SCORES.schema.empty_table(), "T"))
    failed = scores(
        {"layer": 0, "neuron": 0, "status": "no_variance"},
        {"layer": 0, "neuron": 1, "status": "no_variance"},
        {"layer": 0, "neuron": 2, "status": "no_explanation"},
    )
    assert "No score could be computed.\n2 no variance\n1 no explanation" in words(
        draw_scores(failed, "T")
    )
    assert len(write_figures(tmp_path, draw_figures(nothing, failed))) == 6


def test_shares_of_a_layer_are_stacked_to_one_and_counts_are_noted():
    rows = [{"layer": 4, "neuron": i, "type": "visual"} for i in range(3)]
    rows += [{"layer": 4, "neuron": 3, "type": "text"}]
    rows += [{"layer": 9, "neuron": i, "type": "unknown"} for i in range(2)]
    figure = draw_types_by_layer(neuron_types(*rows), "T")
    bars = {
        c.get_label(): [(b.get_y(), b.get_height()) for b in c] for c in figure.axes[0].containers
    }
    assert bars["visual"] == [(0, 0.75), (0, 0)]
    assert bars["text"] == [(0.75, 0.25), (0, 0)]
    assert bars["unknown"] == [(1, 0), (0, 1)]
    assert {"n = 4", "n = 2", "75 %", "25 %", "100 %"} <= set(words(figure))
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["4", "9"]


def test_many_layers_note_their_counts_once():
    figure = draw_types_by_layer(every_type(per_type=2, layers=32), "T")
    assert "8 neurons in each layer, 256 in all" in words(figure)
    assert not any("%" in text for text in words(figure))


def test_coincident_neurons_share_one_square_by_type():
    here = (0.5, 0.2, 0.2, 0.1)
    rows = [{"layer": 0, "neuron": i, "type": "visual", "shares": here} for i in range(30)]
    rows += [{"layer": 0, "neuron": 30 + i, "type": "text", "shares": here} for i in range(10)]
    rows += [{"layer": 0, "neuron": 99, "type": "text", "shares": (0.1, 0.9, 0.0, 0.0)}]
    figure = draw_visual_against_text(neuron_types(*rows), "T")
    squares = rectangles(figure)
    assert squares.keys() == {"visual", "text"}
    [(left, bottom, border, top)] = squares["visual"]
    [alone, (start, low, right, high)] = sorted(squares["text"])
    # Side by side, three to one, around their place; the lone neuron is smaller.
    assert (start, low, high) == pytest.approx((border, bottom, top))
    assert border - left == pytest.approx(3 * (right - border))
    assert ((left + right) / 2, (bottom + top) / 2) == pytest.approx((0.5, 0.2))
    assert ((alone[0] + alone[2]) / 2, (alone[1] + alone[3]) / 2) == pytest.approx((0.1, 0.9))
    assert alone[2] - alone[0] < right - left
    assert {"1 neuron", "10", "40"} <= set(words(figure))


def test_margins_count_every_neuron():
    types = every_type(per_type=5, layers=3)
    _, above, beside = draw_visual_against_text(types, "T").axes
    assert sum(bar.get_bbox().height for bars in above.containers for bar in bars) == types.num_rows
    assert sum(bar.get_bbox().width for bars in beside.containers for bar in bars) == types.num_rows


def test_scores_and_control_stand_on_the_same_bins_with_their_medians():
    table = scores(
        {"layer": 0, "neuron": 0, "correlation": 0.31, "control_other": -0.11},
        {"layer": 0, "neuron": 1, "correlation": 0.52, "control_other": -0.12},
        {"layer": 0, "neuron": 2, "correlation": 0.93, "control_other": 0.31},
        {"layer": 0, "neuron": 3, "status": "no_variance"},
        {"layer": 0, "neuron": 4, "correlation": 0.99, "status": "no_control"},
    )
    figure = draw_scores(table, "T")
    drawn = [step for step in figure.axes[0].patches if isinstance(step, StepPatch)]
    (score, score_bins, _), (control, control_bins, _) = (step.get_data() for step in drawn)
    assert score.sum() == control.sum() == 3
    assert score_bins.tolist() == control_bins.tolist()
    assert score_bins[[0, -1]].tolist() == [-1, 1]
    assert {
        "score, median 0.52",
        "control: another neuron\N{RIGHT SINGLE QUOTATION MARK}s explanation, median "
        "\N{MINUS SIGN}0.11",
    } <= set(words(figure))
    assert "dissect, simulated by concept: 3 neurons" in words(figure)


def test_the_strongest_control_is_drawn_and_named():
    table = scores(
        {"layer": 0, "neuron": 0, "correlation": 0.3, "control_other": 0.0, "control_blind": 0.4},
        {"layer": 0, "neuron": 1, "correlation": 0.3, "control_other": 0.1, "control_blind": 0.5},
    )
    figure = draw_scores(table, "T")
    drawn = [step for step in figure.axes[0].patches if isinstance(step, StepPatch)]
    _, (control, bins, _) = (step.get_data() for step in drawn)
    assert [round(edge, 2) for edge in bins[:-1][control > 0]] == [0.4, 0.5]
    assert "control: a prediction without an explanation, median 0.45" in words(figure)


def test_every_pair_of_explainer_and_simulator_has_its_panel():
    one, other = score_rows([0.4]), score_rows([0.2], explainer="$mall^2")
    figure = draw_scores(pa.concat_tables([one, other]), "T")
    assert len(figure.axes) == 2
    assert "$mall^2, simulated by concept: 1 neuron" in words(figure)


def test_an_svg_has_letters_and_no_fixed_fonts():
    table = score_rows([0.5], explainer="<b>&")
    svg = draw_figures(every_type(), table)[2].svg
    ElementTree.fromstring(svg)
    assert "&lt;b&gt;&amp;, simulated by concept" in svg
    assert "DejaVu" not in svg
    assert not re.search(r"\d{4}-\d\d-\d\dT", svg)


def test_plates_are_named_apart():
    figures = draw_figures(every_type(), score_rows([0.5]))
    assert len({one.name for one in figures}) == len(figures) == 3
