import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.report.settings import About
from tests.tasks.report.rendering import ATTACK, inputs, squeeze
from tests.tasks.report.synthetic import (
    catalog,
    explanations,
    neuron_types,
    sample,
    scores,
    trace,
    traces,
)


def test_the_texts_of_models_and_datasets_cannot_become_markup(render):
    about = About(ATTACK, ATTACK, ATTACK, ((ATTACK, ATTACK),))
    bad_sample = sample(0, tokens=(ATTACK, " ok", ATTACK), source_id=ATTACK)
    rows = {"layer": 3, "neuron": 17, "explainer": ATTACK}
    page, outline = render(
        inputs(
            title=ATTACK,
            when=ATTACK,
            about=about,
            explanations=explanations(
                rows
                | {"text": ATTACK, "model": ATTACK, "evidence_for": ATTACK}
                | {"evidence_against": ATTACK},
                rows | {"explainer": "b", "status": "refused", "reason": ATTACK, "text": ""},
            ),
            scores=scores(
                rows | {"correlation": 0.5, "simulator": ATTACK},
                rows | {"explainer": "b", "status": "no_variance", "reason": ATTACK},
            ),
            outcomes={ATTACK: pa.table({"status": ["failed"], "reason": [ATTACK]})},
            catalog=catalog(bad_sample, sample(1, image=ATTACK.replace("x", ""), source_id=ATTACK)),
        )
    )
    assert outline.words.count("<script>alert(1)</script>") >= 14
    assert len(outline.all("script")) == page.count("<script") == 1
    assert not any("onload" in attributes for _, attributes in outline.found)
    assert not any(a["src"] == "q" for a in outline.all("img"))


def test_nothing_but_the_pages_own_script_may_run_and_nothing_is_fetched(render):
    page, outline = render(inputs())
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(a["content"] for a in outline.all("meta") if "http-equiv" in a)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)


def test_an_image_that_no_longer_opens_is_a_labelled_gap_with_its_heat(render):
    _, outline = render(inputs(catalog=catalog(sample(0, image="gone.png"), sample(1))))
    assert "No image missing: no such file: gone.png" in squeeze(outline.words)
    assert len(outline.all("div", "gap")) == 1
    assert len(outline.all("img", "seen")) == 1
    assert len(outline.all("img", "heat")) == 2


def test_what_has_no_score_shows_its_status_and_no_number(render):
    row = {"layer": 3, "neuron": 17}
    _, outline = render(
        inputs(
            scores=scores(row | {"status": "no_variance", "reason": "the prediction is constant"})
        )
    )
    words = squeeze(outline.words)
    neuron = words[words.index("Layer 3 Neuron 17") : words.index("The numbers")]
    assert "No score: no variance the prediction is constant concept" in neuron
    assert "0.00" not in neuron.split("1 source-0")[0]
    assert outline.all("svg") == []


def test_what_was_not_explained_or_not_scored_says_so(render):
    bare = inputs(explanations=explanations(), scores=scores())
    assert "This neuron was not explained." in render(bare)[1].words
    unscored = inputs(scores=scores())
    assert "Not scored." in render(unscored)[1].words
    refused = explanations(
        {"layer": 3, "neuron": 17, "status": "refused", "text": "", "reason": "policy"}
    )
    words = squeeze(render(inputs(explanations=refused, scores=scores()))[1].words)
    assert "No explanation: refused policy" in words


def test_a_long_text_is_cut_around_its_strongest_token_and_kept_whole_below(render):
    tokens = [f" w{i}" for i in range(300)]
    text = np.zeros(300)
    text[200] = 2.0
    given = inputs(
        traces=traces(trace(np.zeros((2, 3)), text, layer=3, neuron=17)),
        catalog=catalog(sample(0, tokens=tokens)),
    )
    _, outline = render(given)
    cut, _, whole = outline.words.partition("All 300 tokens")
    assert "w200" in cut
    assert cut.count("\N{HORIZONTAL ELLIPSIS}") == 2
    assert "w100" not in cut
    assert "w299" not in cut
    assert "".join(tokens) in whole


def test_a_text_shorter_than_its_activations_or_longer_is_still_shown(render):
    given = inputs(
        catalog=catalog(sample(0, tokens=("a", " b", " c", " unseen")), sample(1, tokens=("a",)))
    )
    _, outline = render(given)
    assert "a b c unseen" in outline.words
    assert (
        "at \N{LEFT DOUBLE QUOTATION MARK}token 2\N{RIGHT DOUBLE QUOTATION MARK}" in outline.words
    )


@pytest.mark.parametrize(
    ("grid", "image", "ratio"), [((8, 8), "96x96", "1.0"), ((24, 12), "100x200", "0.5")]
)
def test_views_of_any_grid_and_proportion(render, grid, image, ratio):
    given = inputs(
        traces=traces(trace(np.eye(*grid), [0, 0, 0], layer=3, neuron=17)),
        catalog=catalog(sample(0, image=image, grid=grid)),
    )
    page, _ = render(given)
    assert f"--ratio:{ratio}" in page
    assert f"{grid[0]} by {grid[1]} patches" in page


def test_failures_are_shown_by_reason(render):
    outcomes = {
        "samples": pa.table(
            {"status": ["ok", "missing", "missing"], "reason": ["", "a.jpg", "b.jpg"]}
        )
    }
    words = squeeze(render(inputs(outcomes=outcomes))[1].words)
    assert "samples missing 2 3 a.jpg and 1 other" in words
    assert "Nothing failed." in render(inputs())[1].words


def test_an_empty_run_still_gives_a_page(render):
    _, outline = render(
        inputs(
            types=neuron_types(), explanations=explanations(), scores=scores(), chosen=[],
            traces=traces(),
        )
    )  # fmt: skip
    assert "There is no neuron with an exemplar to show." in outline.words
    assert "No neuron was classified." in outline.words


def test_headings_nest_and_every_image_has_words(render):
    _, outline = render(inputs())
    levels = [int(tag[1]) for tag, _ in outline.found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("alt") for a in outline.all("img"))


def test_writing_twice_gives_the_same_page(render):
    assert render(inputs())[0] == render(inputs())[0]


def test_the_strongest_patch_is_framed_where_it_looks_in_a_sample_of_several_grids(render):
    thumbnail = Region(0, 1, 1, 0, 0, 40, 20)
    tiles = (Region(0, 2, 2, 0, 0, 20, 20), Region(0, 2, 2, 20, 0, 40, 20))
    visual = np.array([[1, 0, 0, 0, 0, 0, 2, 0, 0]])
    given = inputs(
        traces=traces(trace(visual, [0, 0, 0], layer=3, neuron=17)),
        catalog=catalog(replace(sample(0, image="40x20"), regions=(thumbnail, *tiles))),
    )
    page, _ = render(given)
    assert "2 by 4 patches" in page
    assert "in row 1, column 4" in page
    assert "left:75.0%;top:0.0%;width:25.0%;height:50.0%" in page


def test_an_exemplar_of_text_only_shows_its_text(render):
    given = inputs(
        traces=traces(trace(np.zeros((0, 1)), [0, 2, 0], layer=3, neuron=17)),
        catalog=catalog(replace(sample(0), images=(), regions=())),
    )
    _, outline = render(given)
    assert "No image this sample has none" in squeeze(outline.words)
    assert "a red circle" in outline.words
