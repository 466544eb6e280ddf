"""The whole program where every meaning has its own explanation: a chat model, then dissect."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import (
    MEANING_EXPLANATIONS,
    MEANING_SCORES,
    TableSpec,
    read_table,
)
from neuron_atlas.workflows.run.context import Context
from tests.loopback.fixture import Loopback
from tests.workflows.runs import SCENES, SMALL, SPECS, Atlas, run_here, runs_in

pytestmark = pytest.mark.slow

_NEURONS = 3
_AUTO = "explain.meanings=auto"
_OF_MEANINGS: dict[str, TableSpec] = {
    one.name: one for one in (MEANING_EXPLANATIONS, MEANING_SCORES)
}


@dataclass(frozen=True)
class Runs:
    """A dry run, a run and a run without meanings, in one folder: what was said and asked."""

    out: Path
    neurons: Sequence[tuple[int, int]]
    dry: str
    again: str
    asked: Sequence[dict[str, Any]]
    rows: dict[str, list[dict]]
    page: str
    metrics: dict[str, float]


@pytest.fixture(scope="module")
def runs(
    first_run: Context,
    loopback_process: Loopback,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Runs]:
    out = tmp_path_factory.mktemp("meanings") / "out"
    shutil.copytree(first_run.store.out, out)
    several = Atlas(out).table("meanings", []).to_pylist()
    neurons = sorted({(row["layer"], row["neuron"]) for row in several})[:_NEURONS]
    overrides = (
        SCENES,
        *SMALL,
        "explain=[gpt4o,dissect]",
        f"explain.client.base_url={loopback_process.base_url}",
        "explain.client.provider=loopback",
        f"explain.neurons.only=[{','.join(f'{layer}:{neuron}' for layer, neuron in neurons)}]",
        f"out={out}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", loopback_process.key)
        patch.setenv("NO_PROXY", "127.0.0.1")
        dry = run_here(*overrides, _AUTO, "explain.dry_run=true")
        assert loopback_process.requests() == []
        run_here(*overrides, _AUTO)
        asked = loopback_process.requests()
        page = _page(out)
        rows = {name: _rows(out, name) for name in (*SPECS, *_OF_MEANINGS)}
        _, logged = runs_in(out / "mlflow.db")
        again = run_here(*overrides)
        assert len(loopback_process.requests()) == len(asked)
        yield Runs(out, neurons, dry, again, asked, rows, page, logged[-1].data.metrics)


def _rows(out: Path, name: str) -> list[dict]:
    if name in SPECS:
        return Atlas(out).table(name).to_pylist()
    spec = _OF_MEANINGS[name]
    table = read_table(Atlas(out).files(name), spec)
    return table.sort_by([(key, "ascending") for key in spec.key]).to_pylist()


def _page(out: Path) -> str:
    (page,) = (path for path in Atlas(out).files("report") if path.name == "index.html")
    return page.read_text(encoding="utf-8")


def _meanings(runs: Runs) -> list[tuple[int, int, int]]:
    its = ((row["layer"], row["neuron"], row["meaning"]) for row in runs.rows["meanings"])
    return sorted({one for one in its if one[:2] in runs.neurons})


def test_a_dry_run_counts_the_further_calls_of_the_meanings(runs):
    n_meanings = len(_meanings(runs))
    requests = [int(one) for one in re.findall(r"requests +(\d+) to gpt-4o, and 0 more", runs.dry)]
    assert requests == [_NEURONS, n_meanings]
    assert f"dry run    gpt4o: {n_meanings} meanings" in runs.dry
    dollars = [float(one) for one in re.findall(r"dollars +([\d.]+) at most", runs.dry)]
    assert dollars[1] > dollars[0]
    total = re.search(r"in all +(\d+) requests, ([\d.]+) dollars at most", runs.dry)
    assert total is not None
    assert int(total[1]) == sum(requests)
    paid = sum(
        row["cost"] or 0
        for name in ("explanations", "meaning_explanations")
        for row in runs.rows[name]
    )
    assert 0 < paid <= float(total[2]) + 0.005


def test_every_explainer_writes_each_meaning_from_its_exemplars(runs):
    rows = runs.rows["meaning_explanations"]
    members = {
        (row["layer"], row["neuron"], row["sample_id"]): row["meaning"]
        for row in runs.rows["meanings"]
    }
    for explainer in ("gpt4o", "dissect"):
        mine = [row for row in rows if row["explainer"] == explainer]
        assert [(row["layer"], row["neuron"], row["meaning"]) for row in mine] == _meanings(runs)
        assert {row["status"] for row in mine} == {"ok"}
    for row in (one for one in rows if one["explainer"] == "gpt4o"):
        key = row["layer"], row["neuron"]
        # Random samples are shown as contrasts.
        of = {members.get((*key, sample_id)) for sample_id in row["exemplar_ids"]}
        assert of - {None} == {row["meaning"]}
        assert row["model"] == "gpt-4o"
        assert row["cost"] > 0


def test_the_provider_was_asked_once_for_each_neuron_and_once_for_each_meaning(runs):
    assert len(runs.asked) == _NEURONS + len(_meanings(runs))
    said = {json.loads(one["said"]["message"]["content"])["explanation"] for one in runs.asked}
    for name in ("explanations", "meaning_explanations"):
        assert {row["text"] for row in runs.rows[name] if row["explainer"] == "gpt4o"} <= said


def test_every_meaning_has_a_row_of_scores(runs):
    rows = runs.rows["meaning_scores"]
    for explainer in ("gpt4o", "dissect"):
        mine = [row for row in rows if row["explainer"] == explainer]
        assert [(row["layer"], row["neuron"], row["meaning"]) for row in mine] == _meanings(runs)
    scored = [row for row in rows if row["status"] == "ok"]
    assert scored
    for row in scored:
        assert row["ci_low"] <= row["correlation"] <= row["ci_high"]
        assert row["gain"] == pytest.approx(
            row["correlation"] - max(row["whole"] or 0, 0), abs=1e-5
        )


def test_the_page_and_mlflow_show_the_meanings(runs):
    for explainer in ("dissect", "gpt4o"):
        words = rf"{explainer}, simulated by concept: {_NEURONS} explained neurons have several"
        assert re.search(words, runs.page)
    rows = runs.rows["meaning_scores"]
    assert runs.metrics["meanings/neurons"] == _NEURONS
    for metric, column in (("score", "correlation"), ("score_of_whole", "whole"), ("gain", "gain")):
        known = [row[column] for row in rows if row[column] is not None]
        assert runs.metrics[f"meanings/{metric}"] == pytest.approx(np.mean(known), abs=1e-5)


def test_without_meanings_the_rows_of_whole_neurons_are_the_same(runs):
    for stage in ("explain", "simulate", "score"):
        assert f"{stage} by gpt4o already done" in runs.again
    artifacts = Atlas(runs.out).manifest["artifacts"]
    assert not set(_OF_MEANINGS) & set(artifacts)
    for name in SPECS:
        if name in artifacts:
            assert _rows(runs.out, name) == runs.rows[name], name
    assert "explained neurons have several" not in _page(runs.out)
