"""A finished run's subject probed with a sample of its own dataset, whose answers are known."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from neuron_atlas.tasks.atlas import Atlas
from neuron_atlas.tasks.effects.intervention import InterventionError
from neuron_atlas.tasks.probe import command
from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.probe.result import Probe
from neuron_atlas.tasks.probe.terminal import terminal_lines
from tests.workflows.runs import LAYERS, ROOT

BUNDLED = ROOT / "infra" / "subject" / "llava-scenes"
SHORT = 8
"""Tokens of an answer: without neurons, the subject may not come to an end."""


@pytest.fixture(scope="module")
def opened(first_run) -> Atlas:
    return Atlas.open(first_run.store.out)


@pytest.fixture(scope="module")
def sample(opened) -> int:
    """The sample that is the strongest of the most neurons."""
    first = opened.exemplars.select(pl.col("sample_id").arr.first()).collect()["sample_id"]
    return int(first.mode().min())


@pytest.fixture(scope="module")
def picture(opened, sample, tmp_path_factory) -> Path:
    """The image of a sample, as a file."""
    path = tmp_path_factory.mktemp("probe") / "a <b>scene.png"
    row = opened.samples.filter(pl.col("sample_id") == sample).collect()
    opened.source.open_image(row["images"][0][0]).pixels.save(path)
    return path


@pytest.fixture(scope="module")
def text(opened, sample) -> str:
    rows = opened.descriptions.filter(pl.col("sample_id") == sample).collect()
    return rows["text"][0]


@pytest.fixture(scope="module")
def whole(opened, picture, text) -> Probe:
    """All neurons on the sample, with the text that the run used."""
    return opened.probe(picture, text, count=2000, device="cpu")


def test_a_sample_of_the_dataset_has_the_activations_that_the_run_captured(opened, whole, sample):
    probed = {(one.layer, one.neuron): one for one in whole.neurons}
    traces = opened.evidence.filter(pl.col("sample_id") == sample).collect().to_dicts()
    assert len(traces) >= 5
    for row in traces:
        trace = probed[row["layer"], row["neuron"]].probe.trace
        for role in ("visual", "text"):
            np.testing.assert_allclose(getattr(trace, role), row[role], rtol=2e-3, atol=1e-4)


def test_neurons_are_ranked_as_the_run_ranked_its_samples(opened, whole, sample):
    """A sample is in a neuron's exemplars at the rank that the probe states, and at no other."""
    ranks = {}
    for row in opened.exemplars.select("layer", "neuron", "sample_id").collect().to_dicts():
        if sample in row["sample_id"]:
            ranks[row["layer"], row["neuron"]] = row["sample_id"].index(sample)
    assert len(ranks) > 50
    stated = {(one.layer, one.neuron): one.rank for one in whole.neurons}
    assert {key: stated[key] for key in ranks} == ranks
    assert all(rank is None for key, rank in stated.items() if key not in ranks)
    assert whole.n_samples == 150


def test_neurons_with_their_highest_activation_come_first(opened, whole, sample):
    first = {
        (row["layer"], row["neuron"])
        for row in opened.exemplars.collect().to_dicts()
        if row["sample_id"][0] == sample
    }
    assert first
    count = sum(one.quantile == 1 for one in whole.neurons)
    assert first <= {(one.layer, one.neuron) for one in whole.neurons[:count]}
    assert all(one.activation == pytest.approx(one.highest) for one in whole.neurons[:count])
    chances = [1 - one.quantile ** len(getattr(one.probe.trace, one.role)) for one in whole.neurons]
    assert chances == sorted(chances)


def test_a_quantile_is_the_share_of_the_datasets_tokens(opened, whole):
    """Counted again from the traces of the random samples, which are an unbiased tenth."""
    evidence = opened.evidence.filter(pl.col("stratum") == "random").collect()
    checked = 0
    for one in whole.neurons:
        rows = evidence.filter(layer=one.layer, neuron=one.neuron)
        if rows.height:
            tokens = np.concatenate([np.asarray(row, np.float32) for row in rows[one.role]])
            assert (tokens <= one.activation).mean() == pytest.approx(one.quantile, abs=0.12)
            checked += 1
    assert checked > 30


def test_it_joins_types_explanations_scores_exemplars_and_heat_maps(opened, whole):
    one = next(one for one in whole.neurons if one.explanation and one.score is not None)
    neuron = opened.neuron(one.layer, one.neuron)
    assert one.record.type == neuron.type
    assert one.explanation == neuron.explanations["text"][0]
    assert one.score in neuron.scores["correlation"].to_list()
    assert [x.sample_id for x in one.record.exemplars] == [
        x.sample_id for x in neuron.exemplars[:2]
    ]
    assert one.probe.heat is not None
    assert one.probe.heat.size == len(one.probe.visual)
    assert len(one.probe.text) == len(one.probe.tokens)
    assert whole.table.columns[:3] == ["layer", "neuron", "type"]
    assert whole.table.height == len(whole.neurons)


def test_a_row_on_what_a_neuron_does_is_shown(whole):
    from dataclasses import replace

    effects = {
        "output_tokens": ({"promoted": [" red", "dark"], "suppressed": [], "status": "ok"},),
        "effects": ({"effect": 0.0123, "q": 0.04, "causal_type": "text", "other": 5},),
        "faithfulness": ({"faithfulness": None, "status": "no_words"},),
    }
    one = replace(whole.neurons[0], effects=effects)
    shown = "\n".join(terminal_lines(replace(whole, neurons=(one,)), 100))
    name = f"{one.layer}:{one.neuron}".ljust(11)
    assert f"{name}output tokens: promoted red dark\n" in shown
    assert f"{name}effects: effect 0.0123, q 0.0400, causal type text\n" in shown
    assert "faithfulness" not in shown


def test_without_a_text_the_subject_answers_and_changed_neurons_change_the_answer(opened, picture):
    probe = opened.probe(picture, count=3, device="cpu", max_new_tokens=SHORT)
    assert (probe.is_generated, probe.answer) == (True, probe.text)
    assert probe.changed_answer is None
    first_layer = [(0, neuron) for neuron in range(512)]
    silenced = opened.probe(
        picture, count=3, device="cpu", without=first_layer, max_new_tokens=SHORT
    )
    assert silenced.answer == probe.answer
    assert silenced.changed_answer != silenced.answer
    assert {one.layer for one in silenced.neurons} <= set(LAYERS)
    # A floor of almost 0 under one neuron changes no word.
    same = opened.probe(picture, device="cpu", clamp={(0, 0): 1e-9}, max_new_tokens=SHORT)
    assert same.changed_answer == same.answer == silenced.answer


def test_a_text_alone_has_text_peaks_only(opened, text):
    probe = opened.probe(text=text, count=5, device="cpu")
    assert {one.role for one in probe.neurons} == {"text"}
    assert {one.layer for one in probe.neurons} <= set(LAYERS)
    assert probe.neurons[0].probe.image is None
    assert "No image" in probe._repr_html_()


def test_the_page_needs_nothing_else_and_escapes_words(whole, tmp_path):
    from dataclasses import replace

    path = replace(whole, neurons=whole.neurons[:3]).write_page(tmp_path / "probe.html")
    page = path.read_text(encoding="utf-8")
    assert "a &lt;b&gt;scene.png" in page
    assert "<b>scene" not in page
    assert page.count("data:image/jpeg;base64,") == 9
    assert page.count('class="heat"') >= 3
    assert set(re.findall(r'(?:src|href)="(\w+:)', page)) == {"data:"}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str]:
    """The exit status of a call, and its only line."""
    with pytest.raises(SystemExit) as caught:
        command.main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return caught.value.code, line


def test_the_command_prints_a_table_and_writes_a_page(opened, picture, tmp_path, capsys):
    page = tmp_path / "it.html"
    arguments = [opened.run.out, "--image", picture, "--page", page, "--count", 4]
    command.main(
        [
            str(one)
            for one in (
                *arguments,
                "--device",
                "cpu",
                "--without",
                "1:3,3:9",
                "--max-new-tokens",
                "24",
            )
        ]
    )
    out, _ = capsys.readouterr()
    assert len(re.findall(r"^\d+:\d+ .* (?:maximum|[\d.]+ %) ", out, re.MULTILINE)) == 4
    assert "(without 1:3, 3:9" in " ".join(out.split())
    assert out.splitlines()[-1] == f"page       {page}"
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--image", "missing.png"], r"the image 'missing\.png' is not a file"),
        (["--image", __file__], r"cannot be read: not an image in a supported format"),
        ([], "give an image, a text, or both"),
        (["--text", "  "], "the text is empty"),
        (["--text", "A cat.", "--without", "1:512"], "there is no neuron 1:512; layer 1 of .* 511"),
        (["--text", "A cat.", "--without", "4:0"], "there is no layer 4; .* has layers 0 to 3"),
        (["--text", "A cat.", "--clamp", "1:5=1e39"], r"the value 1e\+39 .* not a number"),
        (["--text", "A cat.", "--without", "red"], "'red' is no neuron"),
        (["--text", "A cat.", "--max-new-tokens", "0"], "max_new_tokens: 0 tokens"),
        (["--text", "A cat.", "--count", "0"], "count: 0 neurons cannot be shown"),
        (
            ["--text", "A cat.", "--model", "/nowhere/at/all"],
            "no folder '/nowhere/at/all'.*--model",
        ),
        (["--text", "A cat.", "--run", "zz"], "there is no run 'zz'"),
        (["--text", "word " * 3000], "the subject cannot use this input: the sample has"),
    ],
)
def test_what_cannot_be_probed_is_one_line(opened, capsys, arguments, expected):
    status, line = said(capsys, opened.run.out, *arguments)
    assert status == 2
    assert re.search(expected, line)


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    status, line = said(capsys, tmp_path, "--text", "A cat.")
    assert (status, "holds no finished run" in line) == (2, True)


def test_an_output_that_overflows_is_one_line(opened, capsys):
    status, line = said(capsys, opened.run.out, "--text", "A cat.", "--clamp", "1:5=3e38")
    assert (status, "overflows" in line) == (2, True)
    with pytest.raises(InterventionError):
        opened.probe(text="A cat.", clamp={(1, 5): 3e38})


def test_another_subject_is_refused(opened, tmp_path, capsys):
    other = shutil.copytree(BUNDLED, tmp_path / "other")
    config = json.loads((other / "generation_config.json").read_text(encoding="utf-8"))
    (other / "generation_config.json").write_text(json.dumps(config | {"top_k": 3}))
    status, line = said(capsys, opened.run.out, "--text", "A cat.", "--model", other)
    assert (status, "is another subject than the run's" in line) == (2, True)
    same = shutil.copytree(BUNDLED, tmp_path / "moved")
    assert opened.probe(text="A cat.", count=1, model=str(same)).neurons


def test_a_run_that_does_not_record_its_subject_asks_for_it(opened, picture):
    from dataclasses import replace

    assert opened.run.subject_source == {"model": str(BUNDLED), "chat_template": None}
    older = replace(opened, run=replace(opened.run, subject_source={}))
    with pytest.raises(ProbeError, match="does not record where its subject 'llava-scenes' is"):
        older.probe(Image.open(picture))
