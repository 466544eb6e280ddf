"""The benchmark of capture finds what an independent capture finds, and needs few packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import bench
from bench.baseline import capture_baseline
from bench.capture import capture_all
from bench.capture_checks import layer_difference
from bench.capture_stage import MERGED, capture_stage, folder_bytes
from bench.subjects import subject_and_samples
from neuron_atlas.tasks.artifacts import exemplars_spec, layer_file, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings

_TOP_N = 4
_BLOCKED = ("ray", "polars", "hydra", "omegaconf", "mlflow", "openai", "numba", "upath", "pydantic")
"""Packages that a machine with nothing but torch, transformers, pyarrow and triton lacks."""


def test_capture_finds_the_exemplars_and_activations_that_the_usual_way_finds() -> None:
    one = subject_and_samples("bundled", 12, torch.device("cpu"))
    subject, samples = one.subject, one.encoded
    encoded = dict(samples)

    records = capture_all(subject, samples, batch_size=5, top_n=_TOP_N)
    usual = capture_baseline(subject, samples, top_n=_TOP_N)

    found = {}
    for layer, record in records.items():
        for neuron, slots in enumerate(record.slot_samples().tolist()):
            for slot, sample_id in enumerate(slots):
                found[layer, neuron, sample_id] = record.slots.top[:, neuron, slot].numpy()
    assert found.keys() == usual.keys()
    for key, trace in usual.items():
        n_visual = encoded[key[2]].n_visual
        for top, activations in zip(found[key], (trace[:n_visual], trace[n_visual:]), strict=True):
            highest = np.sort(activations)[::-1][: len(top)]
            np.testing.assert_allclose(top[: len(highest)], highest, rtol=1e-3, atol=1e-4)


def test_it_measures_and_checks_the_stage_without_the_packages_of_the_whole_program(tmp_path):
    out = tmp_path / "capture.json"
    program = "import sys; sys.modules.update(dict.fromkeys({})); {}".format(
        _BLOCKED, "from bench.capture import main; main()"
    )
    arguments = ["--shape", "llava-tiny", "--samples", "12", "--rounds", "1", "--out", str(out)]

    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(bench.__file__).parent.parent,
    )

    assert ended.returncode == 0, ended.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["backend"] == "torch"  # numba is blocked.
    assert set(result["seconds"]) == {"forward", "kernel", "bare", "stage"}
    assert result["kernel_difference"].startswith("no kernel")
    assert 16 + 60 < result["tokens_per_sample"] < 16 + 260
    assert all(size > 0 for size in result["written_mb"].values())
    assert result["memory"]["planned_gb"] > result["memory"]["weights_gb"] > 0
    for difference in result["batch_sizes"].values():
        assert difference["peak"] < 1e-4
        assert difference["swapped"] < 1e-4


def test_the_stage_writes_the_rows_of_the_kernel_alone(tmp_path):
    one = subject_and_samples("llava-tiny", 10, torch.device("cpu"))
    settings = CaptureSettings(top_n=_TOP_N, batch_size=4, shards=2)

    capture_stage(one, settings, tmp_path)

    for layer, record in capture_all(one.subject, one.encoded, 3, _TOP_N).items():
        spec = exemplars_spec(_TOP_N)
        table = read_table(tmp_path / MERGED / layer_file(spec.name, layer), spec, ["sample_id"])
        merged = table["sample_id"].to_pylist()
        for neuron, sample_ids in enumerate(record.slot_samples().tolist()):
            assert sorted(merged[neuron]) == sorted(sample_ids)
    assert folder_bytes(tmp_path)["merged"] > 0


def test_other_rows_of_a_batch_size_are_measured(tmp_path):
    one = subject_and_samples("llava-tiny", 8, torch.device("cpu"))
    settings = CaptureSettings(top_n=_TOP_N)
    other = subject_and_samples("llava-tiny", 12, torch.device("cpu"))

    for name, some in (("one", one), ("other", other)):
        capture_stage(some, settings, tmp_path / name)

    same = layer_difference(tmp_path / "one" / MERGED, tmp_path / "one" / MERGED, 0, settings)
    assert same == {"same_samples": 1, "same_tokens": 1, "peak": 0, "swapped": 0, "mean": 0}
    changed = layer_difference(tmp_path / "one" / MERGED, tmp_path / "other" / MERGED, 0, settings)
    assert changed["same_samples"] < 1
    assert changed["swapped"] > 0
    assert changed["mean"] > 0
