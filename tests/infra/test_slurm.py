"""infra/slurm/atlas.sbatch on a real SLURM: `make test-with NEEDS=slurm`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.slurm import PROGRAMS, Slurm, one_node_slurm
from tests.waiting import wait_until
from tests.workflows.programs import program
from tests.workflows.runs import ROOT, SMALL, SPECS, Atlas
from tests.workflows.test_resume import same

_MISSING = [
    name
    for name in PROGRAMS
    if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None
]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(_MISSING), reason=f"no {', '.join(_MISSING)}: apt-get install slurm-wlm munge"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="a SLURM of one's own wants root"),
]
SETTINGS = ("data.count=120", *SMALL, "capture.shards=12", "explain.neurons_per_task=2")
SCRIPT = ROOT / "infra" / "slurm" / "atlas.sbatch"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    with one_node_slurm(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The checkout, with the environment that runs these tests for its .venv."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "infra").symlink_to(ROOT / "infra")
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return folder


def submitted(slurm: Slurm, home: Path, out: Path, *settings: str) -> str:
    """A job that runs the script as it is; its number."""
    said = slurm.call(
        *("sbatch", "--parsable", f"--chdir={home}", f"--output={out}.log", str(SCRIPT)),
        *(*SETTINGS, *settings, f"out={out}"),
        ATLAS_HOME=str(home),
    )
    return said.strip()


def log(out: Path) -> Path:
    return Path(f"{out}.log")


def said(out: Path) -> str:
    return log(out).read_text(encoding="utf-8") if log(out).is_file() else ""


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Atlas:
    folder = tmp_path_factory.mktemp("alone")
    with program(folder / "log", *SETTINGS, f"out={folder / 'out'}") as once:
        assert once.end() == 0, once.said()
    return Atlas(folder / "out")


def test_the_script_runs_the_whole_line_on_an_allocation(slurm, home, alone, tmp_path):
    out = tmp_path / "out"
    assert slurm.end_of(submitted(slurm, home, out), log(out)) == "0:0", said(out)
    assert "On head node. Starting Ray cluster head" in said(out)
    assert "scores     mean" in said(out)
    for name in SPECS:
        assert same(Atlas(out).table(name), alone.table(name))
    assert list(home.glob(".slurm-*")) == []


def test_sigterm_reaches_the_driver_and_the_same_call_goes_on(slurm, home, alone, tmp_path):
    out = tmp_path / "out"
    job = submitted(slurm, home, out)
    shards = "artifacts/capture/*/shards/shard-*"
    wait_until(lambda: len(list(out.glob(shards))) >= 2, log=lambda: said(out))
    slurm.call("scancel", "--batch", "--signal=TERM", job)
    assert slurm.end_of(job, log(out)) == "130:0", said(out)
    assert "the same command goes on from there" in said(out)
    assert slurm.end_of(submitted(slurm, home, out), log(out)) == "0:0", said(out)
    assert "samples were done before" in said(out)
    for name in SPECS:
        assert same(Atlas(out).table(name), alone.table(name))


def test_the_status_of_a_wrong_call_is_the_jobs(slurm, home, tmp_path):
    out = tmp_path / "out"
    assert slurm.end_of(submitted(slurm, home, out, "capture.tpo_n=3"), log(out)) == "2:0"
    assert "capture.tpo_n" in said(out)


def test_a_checkout_without_its_environment_is_told(slurm, tmp_path):
    out = tmp_path / "out"
    assert slurm.end_of(submitted(slurm, tmp_path, out), log(out)) == "2:0"
    assert "run make setup there, or set ATLAS_HOME" in said(out)
