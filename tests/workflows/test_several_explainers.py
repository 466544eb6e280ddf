"""The whole program with two explainers: a chat model on loopback, then dissect beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.loopback.fixture import Loopback
from tests.workflows.runs import Atlas, run_here

_NEURONS = 10
_SMALL = (
    "data.count=60",
    "capture.layers=[1]",
    "capture.top_n=16",
    "describe=given",
    f"explain.neurons.count={_NEURONS}",
    "explain.client.provider=loopback",
    "groups.samples=0",
    "steering.neurons_per_type=0",
    "report.neurons_per_type=2",
    "report.site.write=false",
    "score.resamples=100",
    "cluster.cpus=2",
    "cluster.actors=1",
)


@dataclass(frozen=True)
class Runs:
    """One explainer alone, then two in the same folder: what each said, and what was asked."""

    atlas: Atlas
    alone: list[dict]
    said: str
    asked_alone: int
    asked_beside: int
    kept: bool


@pytest.fixture(scope="module")
def runs(
    ray_of_two_cores: None,
    loopback_process: Loopback,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Runs]:
    out = tmp_path_factory.mktemp("several")
    address = f"explain.client.base_url={loopback_process.base_url}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        run_here("explain=gpt4o", address, *_SMALL, f"out={out}")
        atlas = Atlas(out)
        alone = atlas.table("explanations").to_pylist()
        asked_alone = len(loopback_process.requests())
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
        said = run_here("explain=[gpt4o,dissect]", address, *_SMALL, f"out={out}")
        yield Runs(
            atlas,
            alone,
            said,
            asked_alone,
            len(loopback_process.requests()) - asked_alone,
            all(path.stat().st_mtime_ns == then for path, then in before.items()),
        )


def test_one_more_explainer_neither_redoes_nor_asks_again_what_the_first_has_done(runs):
    assert (runs.asked_alone, runs.asked_beside) == (_NEURONS, 0)
    assert runs.kept
    for stage in ("explain", "simulate", "score"):
        assert f"{stage} by gpt4o already done" in runs.said
        assert f"{stage} by dissect already done" not in runs.said


def test_every_explainer_explains_simulates_and_scores_every_neuron(runs):
    both = runs.atlas.table("explanations").to_pylist()
    assert [row for row in both if row["explainer"] == "gpt4o"] == runs.alone
    neurons = {(row["layer"], row["neuron"]) for row in runs.alone}
    for name in ("explanations", "simulations", "scores"):
        rows = runs.atlas.table(name, ["layer", "neuron", "explainer"]).to_pylist()
        for explainer in ("gpt4o", "dissect"):
            assert {
                (row["layer"], row["neuron"]) for row in rows if row["explainer"] == explainer
            } == neurons


def test_what_was_said_is_recorded_with_what_speaks_for_it_and_what_was_held_out(runs):
    for row in runs.alone:
        assert row["status"] == "ok"
        assert row["evidence_for"]
        assert 0 <= row["confidence"] <= 1
        assert row["calibration_ids"]
        seen, held_out = set(row["exemplar_ids"]), {*row["calibration_ids"], *row["scorer_ids"]}
        assert seen
        assert not seen & held_out


def test_explainers_are_scored_on_the_same_samples_which_neither_saw(runs):
    used: dict[tuple[int, int], dict[tuple[str, str], set[int]]] = {}
    near: dict[tuple[int, int], set[int]] = {}
    for row in runs.atlas.table("simulations").to_pylist():
        if row["stratum"] == "near_miss":  # Those of each explanation.
            near.setdefault((row["layer"], row["neuron"]), set()).add(row["sample_id"])
        elif row["sample_id"] >= 0:
            by = used.setdefault((row["layer"], row["neuron"]), {})
            by.setdefault((row["purpose"], row["explainer"]), set()).add(row["sample_id"])
    compared = 0
    for row in runs.atlas.table("explanations").to_pylist():
        by = used[row["layer"], row["neuron"]]
        seen = {*row["exemplar_ids"], *row["calibration_ids"]}
        assert not seen & near.get((row["layer"], row["neuron"]), set())
        for purpose in ("scorer", "calibration"):
            mine, other = (by.get((purpose, name), set()) for name in ("gpt4o", "dissect"))
            assert mine | other <= set(row[f"{purpose}_ids"])
            if mine and other:
                assert mine == other
                compared += purpose == "scorer"
    assert compared


def test_the_page_and_the_closing_lines_hold_them_side_by_side(runs):
    (report,) = {path.parent for path in runs.atlas.files("report") if path.name == "index.html"}
    page = (report / "index.html").read_text(encoding="utf-8")
    article = page[page.index("<article") :]
    article = article[: article.index("</article>")]
    assert article.count('class="explanation"') == 2
    assert article.index("gpt4o, gpt-4o") < article.index(">dissect<")
    assert "% sure" in article
    lines = [line for line in runs.said.splitlines() if line.startswith("scores")]
    assert [line.split("), ")[1] for line in lines] == [
        "dissect simulated by concept",
        "gpt4o simulated by concept",
    ]
