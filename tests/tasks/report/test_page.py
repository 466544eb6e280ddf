from dataclasses import replace

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from tests.tasks.report.rendering import inputs, squeeze
from tests.tasks.report.synthetic import (
    Drawn,
    aggregates,
    catalog,
    every_type,
    explanations,
    neuron_types,
    sample,
    scores,
    trace,
    traces,
)


def test_a_neuron_is_shown_with_type_words_score_and_exemplars(render):
    _, outline = render(inputs())
    words = squeeze(outline.words)
    assert "Layer 3 Neuron 17 visual 70 % text 10 % multi-modal 20 % unknown 0 % of 10" in words
    assert "red patches" in words
    assert (
        "score 0.62 95 % 0.52 to 0.72 strongest control \N{MINUS SIGN}0.04, another "
        "neuron\N{RIGHT SINGLE QUOTATION MARK}s explanation other neuron \N{MINUS SIGN}0.04 "
        "margin +0.66"
    ) in words
    assert "simulated by concept, on 8 samples, 400 tokens" in words
    assert "peak 2.00 in the image" in words
    assert (
        "peak 1.50 at \N{LEFT DOUBLE QUOTATION MARK}circle\N{RIGHT DOUBLE QUOTATION MARK}" in words
    )
    assert [a["id"] for a in outline.all("article")] == ["n-3-17"]


def test_the_page_says_what_was_run(render):
    words = squeeze(render(inputs())[1].words)
    for part in ("Drawn scenes", "llava-scenes", "1,000 scenes", "23 November 2026", "9f2c01"):
        assert part in words


def test_activations_are_normalised_by_the_neurons_scale(render):
    _, outline = render(inputs())
    tokens = [a for a in outline.all("span") if "of 10)" in (a.get("title") or "")]
    assert [a["title"] for a in tokens[:3]] == [
        "0.00 (0.0 of 10)",
        "1.00 (5.0 of 10)",
        "0.500 (2.5 of 10)",
    ]
    assert [a.get("style") for a in tokens[:3]] == [None, "--a:0.5", "--a:0.25"]
    # A negative activation is told, but is not heat.
    assert tokens[4]["title"] == "\N{MINUS SIGN}1.00 (0.0 of 10)"
    assert "style" not in tokens[4]
    assert outline.all("img", "heat")[0]["alt"] == (
        "Heat map over 2 by 3 patches, strongest (10.0 of 10) in row 2, column 3"
    )
    # The frame stands on the strongest patch, and only where the peak is in the image.
    frames = outline.all("span", "peak")
    assert [a["style"] for a in frames] == ["left:66.667%;top:50.0%;width:33.333%;height:50.0%"]


def test_each_sample_is_written_once_and_only_those_shown(render, tmp_path):
    row = {"layer": 3, "sample_id": 0}
    grid = np.ones((2, 3))
    source = Drawn()
    given = inputs(
        catalog=replace(catalog(sample(0), sample(1)), source=source),
        types=neuron_types(*({"layer": 3, "neuron": n, "type": "visual"} for n in (1, 2))),
        chosen=[(3, 1, "visual"), (3, 2, "visual")],
        traces=traces(
            *(trace(grid, [0, 0, 0], neuron=n, **row) for n in (1, 2)),
            trace(grid, [0, 0, 0], layer=3, neuron=1, rank=6, sample_id=1),
        ),
    )
    _, outline = render(given)
    assert [a["src"] for a in outline.all("img", "seen")] == ["images/0.jpg"] * 2
    assert [path.name for path in (tmp_path / "page" / "images").iterdir()] == ["0.jpg"]
    assert source.opened == ["48x48"]


def test_exemplars_come_strongest_first_up_to_the_asked_number(render):
    grid = np.ones((2, 3))
    rows = [
        trace(grid, [0, 0, 0], layer=3, neuron=17, rank=r, sample_id=r) for r in (4, 0, 2, 1, 3)
    ]
    given = inputs(traces=traces(*rows), catalog=catalog(*map(sample, range(5))), exemplars=3)
    _, outline = render(given)
    assert [a["src"] for a in outline.all("img", "seen")] == [f"images/{r}.jpg" for r in range(3)]


def test_all_explainers_and_simulators_of_a_neuron_are_shown(render):
    row = {"layer": 3, "neuron": 17}
    given = inputs(
        explanations=explanations(
            row | {"explainer": "dissect", "text": "first words"},
            row
            | {"explainer": "gpt4o", "text": "second words", "model": "gpt-4o"}
            | {"evidence_for": "most of them", "evidence_against": "one", "confidence": 0.8},
        ),
        scores=scores(
            row | {"explainer": "dissect", "correlation": 0.11},
            row | {"explainer": "gpt4o", "correlation": 0.22},
            row | {"explainer": "gpt4o", "correlation": 0.33, "simulator": "clipseg"},
        ),
    )
    _, outline = render(given)
    words = squeeze(outline.words)
    order = [words.index(part) for part in (
        "first words", "score 0.11", "second words", "for most of them", "against one",
        "gpt4o, gpt-4o, 80 % sure", "score 0.22", "score 0.33",
        "simulated by clipseg",
    )]  # fmt: skip
    assert order == sorted(order)
    assert words.count(" sure") == words.count("for most of them") == 1
    assert len(outline.all("svg", "scale")) == 3


def test_a_score_stands_beside_all_its_controls_and_its_parts(render):
    row = {"layer": 3, "neuron": 17}
    given = inputs(
        scores=scores(
            row
            | {
                "correlation": 0.62,
                "control_other": -0.04,
                "control_empty": 0.05,
                "control_blind": 0.3,
                "margin": 0.32,
                "margin_low": 0.2,
                "margin_high": 0.41,
                "q": 0.0125,
                "spearman": 0.55,
                "auroc": 0.91,
                "explained_variance": 0.37,
                "detection_auroc": 0.88,
                "detection_auroc_other": 0.49,
                "balanced_accuracy": 0.81,
            },
            row | {"tokens": "visual", "correlation": 0.71},
            row | {"tokens": "text", "status": "no_variance", "reason": "flat"},
        )
    )
    _, outline = render(given)
    words = squeeze(outline.words)
    assert (
        "strongest control 0.30, a prediction without an explanation other neuron "
        "\N{MINUS SIGN}0.04 no words 0.05 no explanation 0.30 margin +0.32 "
        "95 % +0.20 to +0.41 q 0.013"
    ) in words
    assert "; visual tokens alone 0.71; text tokens alone no variance" in words
    assert "Spearman 0.55, AUROC of active tokens 0.91, explained variance 0.37" in words
    assert "AUROC 0.88 (control 0.49), balanced accuracy 0.81" in words
    assert len(outline.all("svg", "scale")) == 1


def test_aggregates_are_shown_with_their_intervals_and_what_is_undefined(render):
    _, outline = render(
        inputs(
            aggregates=aggregates(
                {"mean": 0.31, "ci_low": 0.25, "ci_high": 0.37, "n": 1500, "undefined": 12},
                {
                    "by": "type",
                    "group": "text",
                    "mean": None,
                    "ci_low": None,
                    "ci_high": None,
                    "n": 0,
                },
                {"by": "layer", "group": "7"},
            )
        )
    )
    words = squeeze(outline.words)
    assert (
        "All dissect concept 1,500 12 0.31 0.25 to 0.37 0.31 0.31 0.31 other neuron +0.31"
    ) in words
    assert "31 % 1,500 0.31" in words
    assert "Text dissect concept 0 2 \N{EN DASH} " in words
    assert "Layer 7 dissect concept 8 2 0.50 0.40 to 0.60" in words
    assert "if its q is at most 0.05" in words


def test_the_scale_is_drawn_where_the_numbers_lie(render):
    _, outline = render(inputs())
    assert outline.all("circle", "point")[0]["cx"] == "162.0"
    assert outline.all("rect", "interval")[0]["x"] == "152.0"
    assert outline.all("rect", "interval")[0]["width"] == "20.0"
    assert outline.all("path", "control")[0]["d"].startswith("M96.0 ")
    assert outline.all("svg")[0]["aria-label"] == (
        "On a scale from \N{MINUS SIGN}1 to 1: score 0.62, 95 % interval 0.52 to 0.72, "
        "strongest control \N{MINUS SIGN}0.04, another "
        "neuron\N{RIGHT SINGLE QUOTATION MARK}s explanation"
    )


def test_the_strongest_control_is_marked_on_the_scale_and_named_above_the_figures(render):
    row = {"layer": 3, "neuron": 17, "correlation": 0.29, "control_other": 0.02}
    means = {"correlation": 0.293, "control_other": 0.023, "control_blind": 0.412}
    table = aggregates({}).to_pylist()
    for one in table:
        one["mean"] = means.get(one["measure"], -0.12)
    _, outline = render(
        inputs(
            scores=scores(row | {"control_blind": 0.41}),
            aggregates=pa.Table.from_pylist(table, schema=SCORE_AGGREGATES.schema),
        )
    )
    assert outline.all("path", "control")[0]["d"].startswith("M141.0 ")
    words = squeeze(outline.words)
    assert (
        "dissect, scored with concept: mean score 0.29, strongest control 0.41 (a prediction "
        "without an explanation), mean margin \N{MINUS SIGN}0.12"
    ) in words


def test_a_whole_run_goes_from_choice_to_page(render):
    types = every_type(per_type=4, layers=2)
    said = explanations({"layer": 1, "neuron": 5, "type": "text"})
    scored = scores({"layer": 1, "neuron": 5, "type": "text", "correlation": 0.9})
    chosen = select_strongest_neurons(types, said, scored, per_type=2)
    grid = np.ones((2, 3))
    rows = [trace(grid, [0, 1, 0], layer=layer, neuron=n) for layer, n, _ in chosen]
    _, outline = render(
        inputs(types=types, explanations=said, scores=scored, chosen=chosen, traces=traces(*rows))
    )
    assert [a["id"] for a in outline.all("article")] == [f"n-{a}-{b}" for a, b, _ in chosen]
    assert outline.all("article")[2]["id"] == "n-1-5"
    ids = [a["id"] for _, a in outline.found if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.found:
        target = attributes.get("href") or ""
        assert not target.startswith("#") or target[1:] in ids
