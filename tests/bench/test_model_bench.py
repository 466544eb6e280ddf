"""The benchmark of the whole model reads seconds, memory and bytes from a run's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from bench.model import CHECKOUT, comparison, settings_of_run, stages, table
from bench.watch import MemorySample, Watch, watching
from bench.wide import save_wide_subject
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings

_BEGUN = 1_000_000.0
_MB = 1_000_000


def test_a_stage_lasts_from_the_manifest_before_it_to_its_own(tmp_path):
    _manifest(tmp_path, "samples", _BEGUN + 5, {"samples": 1.0})
    _manifest(tmp_path, "capture", _BEGUN + 65, {"capture": 40.0, "merge": 15.0})
    watch = Watch(
        memory=[
            MemorySample(_BEGUN + 1, 1 * 10**9, 2 * 10**9),
            MemorySample(_BEGUN + 30, 3 * 10**9, 5 * 10**9),
            MemorySample(_BEGUN + 60, 2 * 10**9, 6 * 10**9),
        ],
        files={
            ("samples/f/samples-0.parquet", 1): 2 * _MB,
            ("samples/f/manifest.json", 2): 9 * _MB,
            ("capture/f/shards/shard-0/traces-layer-000.parquet", 3): 30 * _MB,
            ("capture/f/traces-layer-000.parquet", 4): 20 * _MB,
            ("capture/f/traces-layer-000.parquet", 5): 20 * _MB,  # Written twice.
            ("report/f/site/data/a.js", 6): 7 * _MB,
        },
    )

    measured = stages(tmp_path, watch, _BEGUN)

    assert list(measured) == ["samples", "capture"]
    assert measured["samples"]["seconds"] == 5
    assert measured["samples"]["artifacts_mb"] == {"samples": 2}
    capture = measured["capture"]
    assert (capture["seconds"], capture["steps"]["merge"]) == (60, 15)
    assert (capture["largest_process_gb"], capture["all_processes_gb"]) == (3, 6)
    assert capture["artifacts_mb"] == {"shards/traces": 30, "traces": 40}
    assert capture["written_mb"] == 70


def test_the_table_and_the_ratios_name_every_stage():
    old = _result("before", {"capture": (100.0, 700.0), "report": (10.0, 0.0)})
    new = _result("after", {"capture": (50.0, 70.0), "evidence": (5.0, 1.0), "report": (10.0, 0.0)})

    assert "capture" in table(new)
    ratios = {line.split()[0]: line.split()[1:] for line in comparison(new, old).splitlines()[2:]}

    assert ratios["capture"] == ["0.500", "1.000", "1.000", "0.100"]
    assert ratios["evidence"] == ["-"] * 4
    assert ratios["report"] == ["1.000", "1.000", "1.000", "-"]
    assert comparison(new | {"layers": 2}, old).startswith("warning: the runs differ in layers")


def test_memory_and_files_of_a_process_are_watched(tmp_path):
    program = (
        "import time, pathlib, sys\n"
        "held = bytearray(60_000_000)\n"
        "folder = pathlib.Path(sys.argv[1], 'capture', 'f')\n"
        "folder.mkdir(parents=True)\n"
        "(folder / '.traces.parquet.123.tmp').write_bytes(held[:1000])\n"
        "time.sleep(3)\n"
        "(folder / '.traces.parquet.123.tmp').rename(folder / 'traces.parquet')\n"
    )
    start = time.time()
    running = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])

    with watching(running.pid, tmp_path) as watch:
        assert running.wait() == 0

    largest, total = watch.peak(start, time.time())
    assert largest > 60_000_000
    assert total > 60_000_000
    # Seen under both names, but counted once.
    assert {name: size for (name, _), size in watch.files.items()} == {
        "capture/f/traces.parquet": 1000
    }
    assert len(watch.files) == 1


@pytest.mark.parametrize(
    ("config", "setting"),
    [("x: 1\nout: out\n", "out=o"), ("\noutput:\n  dir: o\n", "output.dir=o")],
)
def test_the_output_folder_has_the_name_of_the_programs_version(tmp_path, config, setting):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "atlas.yaml").write_text(config, encoding="utf-8")
    options = Namespace(samples=4, explained=2, cpus=1, settings=["capture.top_n=7"])

    settings = settings_of_run(tmp_path, options, Path("subject"), Path("o"))

    assert settings[0] == setting
    assert settings[-1] == "capture.top_n=7"


def test_the_settings_of_the_run_exist():
    options = Namespace(samples=4, explained=2, cpus=1, settings=[])
    settings = settings_of_run(CHECKOUT, options, Path("subject"), Path("o"))
    command = [sys.executable, "-m", "neuron_atlas.workflows.atlas", "--cfg", "job", *settings]

    composed = subprocess.run(command, capture_output=True, text=True, check=False)

    assert composed.returncode == 0, composed.stderr
    assert "count: 2" in composed.stdout


def test_the_wide_subject_loads(tmp_path):
    save_wide_subject(tmp_path, layers=3, neurons=40, hidden=16)

    subject = load_subject(SubjectSettings(model=str(tmp_path)))

    assert (len(decoder_layers(subject)), neurons_per_layer(subject)) == (3, 40)


def _manifest(folder: Path, stage: str, written: float, seconds: dict[str, float]) -> None:
    path = folder / stage / "f" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    os.utime(path, (written, written))


def _result(program: str, measured: dict[str, tuple[float, float]]) -> dict:
    return {
        "program": program,
        "machine": "x",
        "layers": 32,
        "neurons_per_layer": 11_008,
        "hidden_size": 64,
        "samples": 400,
        "explained": 1280,
        "seconds": 100.0,
        "stages": {
            name: {
                "seconds": seconds,
                "steps": {name: seconds},
                "largest_process_gb": 1.0,
                "all_processes_gb": 2.0,
                "written_mb": written,
                "artifacts_mb": {name: written},
            }
            for name, (seconds, written) in measured.items()
        },
    }
