"""The jobs of a sweep: names, what they share, and what is told before anything has begun."""

from __future__ import annotations

from itertools import product

import pytest

from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.sweep.jobs import (
    Job,
    folder_name,
    read_jobs,
    shared_capture,
    sweep_name,
)
from tests.workflows.runs import composed


def jobs(*swept: str, out: str = "out") -> list[Job]:
    """As Hydra makes them: every choice of a|b with every other."""
    told = [
        [f"{name}={text}" for text in texts.split("|")]
        for name, _, texts in (choice.partition("=") for choice in (*swept, f"out={out}"))
    ]
    overrides = [list(one) for one in product(*told)]
    return read_jobs(overrides, [composed(*one) for one in overrides])


def layers_for_all(job: Job, all_jobs: list[Job]) -> object:
    shared = shared_capture(job, all_jobs)
    return "alone" if shared is None else shared.capture.layers


def test_a_job_is_named_by_what_is_swept_alone():
    found = jobs("capture.layers=0|[1,2]", "capture.top_n=20")
    assert [job.name for job in found] == ["capture.layers=0", "capture.layers=[1,2]"]
    assert sweep_name(found) == "capture.layers=0,[1,2]"
    assert [job.settings.capture.layers for job in found] == [(0,), (1, 2)]


def test_the_layers_of_all_jobs_that_capture_alike_are_captured_together():
    found = jobs("capture.layers=3|0|[1,3]", "score.seed=0|1")
    assert len(found) == 6
    assert {layers_for_all(job, found) for job in found} == {(0, 1, 3)}


def test_all_layers_are_captured_where_one_job_wants_all():
    found = jobs("capture.layers=0|null")
    assert layers_for_all(found[0], found) is None


def test_jobs_that_capture_otherwise_share_nothing():
    found = jobs("capture.layers=0|1", "capture.top_n=20|50")
    by_top_n = {job.settings.capture.top_n: layers_for_all(job, found) for job in found}
    assert by_top_n == {20: (0, 1), 50: (0, 1)}
    assert len({job.capture_key for job in found}) == 2
    apart = jobs("data.seed=0|1")
    assert [layers_for_all(job, apart) for job in apart] == ["alone", "alone"]


def test_jobs_of_the_same_layers_need_nothing_ahead():
    found = jobs("score.seed=0|1", "capture.layers=2")
    assert [layers_for_all(job, found) for job in found] == ["alone", "alone"]


@pytest.mark.parametrize(
    ("swept", "said"),
    [
        (
            ["capture.top_n=0|5"],
            r"capture.top_n: must be at least 1, not 0 \(in the job capture.top_n=0",
        ),
        (["capture.layers=0|0"], "two jobs of the sweep are the same"),
        (["tracking.experiment=a|b"], "tracking.experiment: must be the same for all jobs"),
        (["cluster.cpus=1|2"], "cluster.cpus: must be the same for all jobs of a sweep"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_has_begun(swept, said):
    with pytest.raises(ConfigError, match=said):
        jobs(*swept)


def test_a_sweep_has_one_output_folder():
    with pytest.raises(ConfigError, match="out: must be the same for all jobs of a sweep"):
        jobs(out="a|b")


def test_the_want_of_a_key_is_told_before_the_other_jobs_have_run(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ProviderError, match=r"OPENAI_API_KEY.* \(in the job explain=gpt4o\)"):
        jobs("explain=dissect|gpt4o")


def test_so_is_that_of_a_simulators_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ProviderError, match=r"OPENAI_API_KEY.* \(in the job simulate=chat\)"):
        jobs("simulate=concept|chat")


def test_a_folder_is_named_the_same_each_time_and_never_leads_out_of_its_place():
    assert folder_name("capture.layers=0,1") == "capture.layers=0,1"
    odd = "data.path=../../x y"
    assert folder_name(odd) == folder_name(odd) != folder_name(f"{odd}z")
    assert "/" not in folder_name(odd)
    assert len(folder_name("x" * 500)) < 120
