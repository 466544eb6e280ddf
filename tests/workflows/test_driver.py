"""The driver needs no torch: its container and a cluster's head have none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.runs import ROOT, SMALL

WITHOUT_TORCH = "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'accelerate'])"
"""Importing them then fails, in this process alone: Ray's workers begin anew."""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_TORCH}; {code}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entry_points_of_a_run_and_of_a_sweep_import_no_torch() -> None:
    ended = run("import neuron_atlas.workflows.atlas, neuron_atlas.workflows.sweep.run")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_whole_run_is_driven_without_torch(tmp_path: Path) -> None:
    ended = run(
        "from neuron_atlas.workflows.atlas import main; main()",
        "data.count=60",
        *SMALL,
        "report.site.write=true",
        f"out={tmp_path}",
    )
    assert ended.returncode == 0, ended.stderr
    assert "not all is logged" not in ended.stderr
    assert (tmp_path / "manifest.json").is_file()
