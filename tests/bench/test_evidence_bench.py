"""The benchmark of evidence replays what it says."""

from __future__ import annotations

from bench.evidence import EXEMPLARS, RANDOM, measure_replay


def test_it_replays_as_many_rows_as_there_are_neurons_and_samples(tmp_path) -> None:
    result = measure_replay(tmp_path, neurons=6, samples=90, rounds=1)
    assert result["rows"] == 6 * (EXEMPLARS + RANDOM)
    assert result["bytes"] > result["rows"] * 64 * 2
    assert 0 < result["replay_over_forward"] < 20
