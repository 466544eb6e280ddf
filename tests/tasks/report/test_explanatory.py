"""What the page, the site and the notebook tell a newcomer: verdicts, terms and captions."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES
from neuron_atlas.tasks.report.glossary import GLOSSARY, READING, term
from neuron_atlas.tasks.report.neuron_view import neuron_html
from tests.tasks.report.rendering import Outline, inputs, squeeze
from tests.tasks.report.synthetic import aggregates, scores

APP = Path(__file__).parents[3] / "tasks" / "report" / "site" / "app"
ROW = {"layer": 3, "neuron": 17, "correlation": 0.62, "control_other": 0.31, "margin_low": 0.22}
WHOLE = ROW | {
    "margin_high": 0.4, "q": 0.003, "control_empty": 0.1, "control_blind": 0.2,
    "spearman": 0.5, "detection_auroc": 0.9, "control_broader": 0.4, "control_narrower": 0.3,
}  # fmt: skip
CLEAR = (
    "clear: 0.62, 0.31 above the best control, another neuron\N{RIGHT SINGLE QUOTATION MARK}s "
    "explanation (0.22 to 0.40), q = 0.003"
)
RESPONSES = [
    {
        "rule": "paper", "type": "visual", "n": 1, "share": 0.5, "ci_low": 0.1, "ci_high": 0.9,
        "medians": {}, "concept": {"n": 0, "total": 0}, "words": [],
    }
]  # fmt: skip


class Analysed:
    """An analysis with one type."""

    def by_type(self):
        return RESPONSES


class Measured:
    """Effects of one type and one explainer."""

    level = 0.05

    def causal_types(self):
        return [{"type": "visual", "n": 1, "counts": dict.fromkeys(CAUSAL_TYPES, 0), "median": 0.1}]

    def checks(self):
        return [{"group": "all", "n": 9, "correlation": 0.9, "slope": 1.1, "is_trusted": True}]

    def faithful(self):
        return [
            {
                "explainer": "dissect", "tested": 2, "faithful": 1, "mean": 0.2, "agreement": 0.8,
                "agreement_other": 0.5,
            }
        ]  # fmt: skip


class Clear:
    """Clarity of one group of neurons."""

    def rows(self):
        row = {"p5": 0.1, "p50": 0.2, "p95": 0.3}
        names = ("clarity_visual", "clarity_text", "redundancy_visual")
        return [{"by": "all", "group": "", "redundancy_text": None} | dict.fromkeys(names, row)]


def whole_page(render):
    given = inputs(scores=scores(WHOLE), aggregates=aggregates({}))
    return render(replace(given, analysis=Analysed(), effects=Measured(), clarity=Clear()))[1]


def abbreviations(outline):
    return [a["title"] for a in outline.all("abbr")]


def test_the_page_and_the_notebook_give_the_same_verdict(render):
    given = inputs(scores=scores(WHOLE))
    assert CLEAR in squeeze(render(given)[1].words)
    assert CLEAR in squeeze(Outline(neuron_html(given.neurons[0])).words)


def test_the_overview_counts_verdicts(render):
    words = squeeze(
        render(
            inputs(
                scores=scores(
                    WHOLE,
                    WHOLE | {"neuron": 18, "q": 0.5},
                    WHOLE | {"neuron": 19, "correlation": 0.1, "margin": -0.21},
                    WHOLE | {"neuron": 20, "correlation": None, "status": "no_variance"},
                    WHOLE | {"tokens": "visual"},
                )
            )
        )[1].words
    )
    assert "dissect, scored with concept: 1 clear, 1 weak, 1 none; 1 without a score" in words


def test_a_page_without_scores_counts_no_verdicts(render):
    assert "verdict" not in squeeze(render(inputs(scores=scores()))[1].words).split("What the")[0]


def test_what_was_not_scored_shows_no_verdict(render):
    given = inputs(scores=scores(WHOLE | {"status": "no_variance", "correlation": None}))
    assert render(given)[1].all("p", "verdict") == []


def test_every_figure_of_the_page_has_a_caption_and_says_what_to_look_for(render):
    given = inputs(scores=scores(WHOLE))
    page, _ = render(given)
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    captions = [re.search(r"<figcaption>(.*?)</figcaption>", one, re.DOTALL) for one in figures]
    assert len(figures) == len(given.figures) + len(given.neurons[0].exemplars)
    assert all(caption and caption[1].strip() for caption in captions)
    for one in given.figures:
        assert one.look_for.startswith("Look ")
        assert one.look_for.count(".") == 1
        assert one.look_for in squeeze(Outline(page).words)
    for figure in ("score_scale", "exemplars"):
        assert READING[figure] in squeeze(Outline(page).words)


def test_the_notebook_says_what_to_look_for():
    words = squeeze(Outline(neuron_html(inputs().neurons[0])).words)
    assert READING["score_scale"] in words
    assert READING["exemplars"] in words


def test_every_term_of_the_glossary_is_explained_on_the_page_where_it_is_used(render):
    assert set(abbreviations(whole_page(render))) == set(GLOSSARY.values())


def test_the_page_lists_the_glossary(render):
    words = squeeze(render(inputs())[1].words)
    for name, meaning in GLOSSARY.items():
        assert f"{name} {meaning}" in words


def test_the_keyboard_reaches_each_term_once_on_the_page_and_all_in_the_notebook(render):
    outline = whole_page(render)
    reached = {a["title"] for a in outline.all("abbr") if a.get("tabindex") == "0"}
    assert reached == set(GLOSSARY.values())
    assert len(reached) < len(outline.all("abbr"))
    notebook = Outline(neuron_html(inputs(scores=scores(WHOLE)).neurons[0])).all("abbr")
    assert all(a.get("tabindex") == "0" for a in notebook)
    for name in ("exemplar", "margin", "control", "score", "clear", "q-value"):
        assert GLOSSARY[name] in {a["title"] for a in notebook}


def test_a_meaning_is_one_sentence():
    for meaning in (*GLOSSARY.values(), *READING.values()):
        assert re.fullmatch(r"[A-Z][^!?]*\.", meaning)
        assert ". " not in meaning


def test_the_app_asks_for_terms_and_sentences_that_there_are():
    script = "\n".join(path.read_text() for path in APP.glob("*.js"))
    asked = re.findall(r'Atlas\.term\("([^"]+)"', script)
    assert {"exemplar", "margin", "control", "score"} <= set(asked) <= set(GLOSSARY)
    heads = re.search(r"const TERMS = \{(.*?)\};", script)
    assert heads
    assert set(re.findall(r'"([^"]+)"', heads[1])) <= set(GLOSSARY)
    assert set(re.findall(r'Atlas\.reading\("([^"]+)"\)', script)) == set(READING)


def test_words_in_a_term_are_escaped_and_an_unknown_term_is_refused():
    assert "&lt;b&gt;" in term("score", "<b>")
    with pytest.raises(KeyError):
        term("scoer")
