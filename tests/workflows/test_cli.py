"""The program as it is called at a terminal."""

from __future__ import annotations

import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.workflows.runs import SMALL, Atlas, command
from workflows.atlas import main
from workflows.composition import CONF


def call(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*overrides), cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_installed_command_is_the_entry_point():
    (script,) = entry_points(group="console_scripts", name="neuron-atlas")
    assert script.load() is main


def test_a_wrong_key_is_one_line_and_status_2_and_leaves_nothing_behind(tmp_path):
    ended = call("capture.layer=1", "out=here", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        "neuron-atlas: capture.layer: no such setting; allowed here: batch_size, decoders, "
        "device_memory_gb, hook_point, host_memory_gb, layers, peak_roles, random_samples, seed, "
        "shards, top_n\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_groups_their_choices_and_examples(tmp_path):
    ended = call("--help", cwd=tmp_path)
    assert ended.returncode == 0
    for group in CONF.iterdir():
        for choice in group.glob("*.yaml"):
            assert choice.stem in ended.stdout
    assert "neuron-atlas data=llava_json data.annotations=FILE.json" in ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two layers, one after the other; the folder of the call and what was said."""
    folder = tmp_path_factory.mktemp("sweep")
    of_layers = [text for text in SMALL if not text.startswith("capture.layers")]
    ended = call(
        *("--multirun", "data.count=40", *of_layers, "capture.layers=0,1", "out=atlas"), cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return folder, ended.stderr


def test_a_sweep_runs_once_for_each_value_and_describes_once(sweep):
    folder, said = sweep
    described = (folder / "atlas" / "artifacts" / "describe").glob("*/manifest.json")
    assert len(list(described)) == 1
    captured = (folder / "atlas" / "artifacts" / "capture").glob("*/exemplars-layer-*.parquet")
    assert sorted(path.name for path in captured) == [
        "exemplars-layer-000.parquet",
        "exemplars-layer-001.parquet",
    ]
    assert said.count("describe   already done (") == 1
    assert said.count("scores     mean") == 2


def test_the_manifest_is_of_the_last_run_of_a_sweep(sweep):
    atlas = Atlas(sweep[0] / "atlas")
    assert set(atlas.table("types", ["layer"])["layer"].to_pylist()) == {1}


def test_a_sweep_leaves_only_its_output_folder(sweep):
    assert [path.name for path in sweep[0].iterdir()] == ["atlas"]
