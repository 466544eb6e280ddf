"""The benchmark scores what it says it scores, as a plain loop over neurons would."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from bench import score, simulate
from bench.score import Size, draw_part, main, missed_targets, score_parts
from neuron_atlas.tasks.artifacts import CLAIMS, LEVELS
from neuron_atlas.tasks.score.settings import ScoreSettings

_SIZE = Size(samples=6, visual=30, text=10)


def test_the_scores_are_those_of_numpy_over_the_same_traces() -> None:
    share = score_parts([(0, 4), (4, 2)], _SIZE, ScoreSettings(resamples=100))
    rows = [row for row in share.scores.to_pylist() if row["tokens"] == "all"]
    assert [row["neuron"] for row in rows] == list(range(6))
    part = draw_part(4, 2, _SIZE)
    predicted = part.simulations.to_pylist()
    for row, neuron in zip(rows[4:], part.evidence["scorer"], strict=True):
        x = np.concatenate([[*seen.visual, *seen.text] for seen in neuron.records])
        # Random sample 3 is predicted, so it is one of the near misses.
        near, rest = 430 / (8 + 1), 22_520 / 2
        weights = np.repeat([50 / 3] * 3 + [near] + [rest] * 2 + [near] * 8, 40)
        for claim, column in zip(
            (*CLAIMS, *LEVELS),
            (
                *("correlation", "control_other", "control_empty"),
                *("control_broader", "control_narrower"),
            ),
            strict=True,
        ):
            y = np.concatenate(
                [
                    [*one["visual"], *one["text"]]
                    for one in predicted
                    if (one["neuron"], one["explanation"], one["purpose"])
                    == (neuron.neuron, claim, "scorer")
                ]
            ).astype(np.float64)
            spread = np.cov(x, y, aweights=weights)
            assert abs(row[column] - spread[0, 1] / np.sqrt(np.prod(np.diag(spread)))) < 1e-6
        assert row["status"] == "ok"
        measured = {name for name, value in row.items() if value is None}
        levels = {f"{level}_claim" for level in LEVELS} | {f"q_{level}" for level in LEVELS}
        assert measured == {"p", "p_contest", "q"} | levels
    assert share.seconds > 0
    assert share.max_rss > 50e6


def test_it_writes_seconds_and_memory_beside_what_others_have_measured(tmp_path, monkeypatch):
    path = tmp_path / "score.json"
    path.write_text('{"simulating": {"share": 0.97}}', encoding="utf-8")
    small = "--neurons 3 --samples 4 --visual 20 --text 5 --resamples 100 --processes 1 --out"
    given = ["score", "--only", "scoring", *small.split(), str(path)]
    monkeypatch.setattr(sys, "argv", given)
    # The memory of this process, which has run other tests, counts too.
    monkeypatch.setattr(score, "GIGABYTES", 1_000)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["simulating"] == {"share": 0.97}
    scoring = written["scoring"]
    assert (scoring["neurons"], scoring["tokens"], scoring["rows"]["scores"]) == (3, 25, 9)
    assert scoring["seconds"]["all"] > 0
    assert scoring["max_rss_gb"]["all"] > 0.05


def test_a_target_that_is_missed_is_told():
    scoring = {"seconds": {"all": 61, "limit": 60}, "max_rss_gb": {"all": 2.9, "limit": 3}}
    assert missed_targets(scoring) == ["seconds: 61 exceeds the limit of 60"]
    good = {"stage_over_bare": 0.95, "stage": [{"answered": 9}], "bare": [{"answered": 9}]}
    assert simulate.missed_targets(good) == []
    slow = simulate.missed_targets(good | {"stage_over_bare": 0.94})
    assert slow == ["0.94 of a bare client's throughput; the target is 0.95"]
    lost = simulate.missed_targets(good | {"stage": [{"answered": 8}]})
    assert lost == ["8 of 9 requests answered"]
