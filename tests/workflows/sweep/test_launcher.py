"""From the command line to the jobs of a sweep, as Hydra composes them."""

from __future__ import annotations

from typing import Any

import pytest

from neuron_atlas.workflows.sweep import run as sweep_run


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the sweep is handed, in the place of running it; and what status it ends with."""
    told: dict[str, Any] = {"status": 0}

    def run_sweep(overrides: Any, configs: Any) -> int:
        told.update(overrides=overrides, configs=configs)
        return told["status"]

    monkeypatch.setattr(sweep_run, "run_sweep", run_sweep)
    return told


def test_a_multirun_hands_all_its_jobs_over_at_once(as_if_called, handed, tmp_path, monkeypatch):
    from neuron_atlas.workflows.atlas import main

    out = tmp_path / "out"
    asked = ["--multirun", "capture.layers=[0,1],[2]", "explain=dissect,gpt4o", f"out={out}"]
    monkeypatch.setattr("sys.argv", ["neuron-atlas", *asked, "tracking.run_name=n${hydra:job.num}"])
    main()
    configs = handed["configs"]
    assert [(config["capture"]["layers"], config["explain"]["_target_"]) for config in configs] == [
        ([0, 1], "neuron_atlas.tasks.explain.dissect.Dissect"),
        ([0, 1], "neuron_atlas.tasks.explain.chat.Chat"),
        ([2], "neuron_atlas.tasks.explain.dissect.Dissect"),
        ([2], "neuron_atlas.tasks.explain.chat.Chat"),
    ]
    assert [config["tracking"]["run_name"] for config in configs] == ["n0", "n1", "n2", "n3"]
    assert all(config["out"] == str(out) and "hydra" not in config for config in configs)


@pytest.mark.parametrize("status", [1, 2, 130])
def test_the_exit_status_is_that_of_the_sweep(handed, ended, tmp_path, status):
    handed["status"] = status
    assert ended("--multirun", "capture.layers=0,1", f"out={tmp_path}") == (status, "")


def test_a_wrong_job_is_one_line_and_status_2(ended, tmp_path):
    status, err = ended("--multirun", "capture.top_n=5,0", f"out={tmp_path}")
    assert status == 2
    assert err == (
        "neuron-atlas: capture.top_n: must be at least 1, not 0 (in the job capture.top_n=0)\n"
    )


def test_the_want_of_a_key_is_one_line_and_status_2(ended, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    status, err = ended("--multirun", "explain=dissect,gpt4o", f"out={tmp_path}")
    assert status == 2
    assert err.startswith("neuron-atlas: ")
    assert err.endswith(" (in the job explain=gpt4o)\n")
    assert err.count("\n") == 1
