"""The program as it is called at a terminal."""

from __future__ import annotations

import subprocess
from importlib.metadata import entry_points
from pathlib import Path

from neuron_atlas.workflows.atlas import main
from neuron_atlas.workflows.config.composition import CONF
from tests.workflows.runs import command


def call(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*overrides), cwd=cwd, capture_output=True, text=True, check=False)


def test_the_installed_command_is_the_entry_point():
    (script,) = entry_points(group="console_scripts", name="neuron-atlas")
    assert script.load() is main


def test_a_wrong_key_is_one_line_and_status_2_and_leaves_nothing_behind(tmp_path):
    ended = call("capture.layer=1", "out=here", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        "neuron-atlas: capture.layer: no such setting; allowed here: batch_size, device_memory_gb, "
        "hook_point, image_threads, layers, max_exemplar_share, max_nonfinite_share, "
        "peak_roles, sae, shards, top_activations, top_n\n"
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
