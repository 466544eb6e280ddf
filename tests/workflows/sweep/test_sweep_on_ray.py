"""A real sweep, as it is called at a terminal."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflows.programs import program
from tests.workflows.runs import SMALL, Atlas, command, runs_in, small_run

pytestmark = pytest.mark.slow

OF_LAYERS = [text for text in SMALL if not text.startswith("capture.layers")]
DATA = "data.count=40"


def call(cwd: Path, layers: str, *more: str) -> subprocess.CompletedProcess[str]:
    swept = ("--multirun", DATA, *OF_LAYERS, f"capture.layers={layers}", "out=atlas", *more)
    return subprocess.run(command(*swept), cwd=cwd, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Sweep:
    """The folder that a sweep was called in, and what was said."""

    folder: Path
    said: str

    @property
    def out(self) -> Path:
        return self.folder / "atlas"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    ended = call(folder, "0,1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return Sweep(folder, ended.stderr)


def test_it_describes_and_captures_once_for_all_its_jobs(sweep):
    for stage in ("describe", "capture"):
        assert len(list((sweep.out / "artifacts" / stage).glob("*/manifest.json"))) == 1
        assert sweep.said.count(f"{stage:<10} 40/40 samples") == 1
        assert sweep.said.count(f"{stage:<10} already done (") == 2
    assert sweep.said.count("scores     mean") == 2


def test_the_manifest_is_of_the_last_run_and_each_job_has_its_own(sweep):
    assert set(Atlas(sweep.out).table("types", ["layer"])["layer"].to_pylist()) == {1}
    folder = sweep.out / "sweep" / "capture.layers=0,1"
    for layer in (0, 1):
        text = (folder / "jobs" / f"capture.layers={layer}.json").read_text(encoding="utf-8")
        (types,) = json.loads(text)["artifacts"]["types"]["files"]
        assert types.endswith(f"types-layer-{layer:03d}.parquet")
    assert (folder / "index.html").is_file()


def test_it_leaves_only_its_output_folder(sweep):
    assert [path.name for path in sweep.folder.iterdir()] == ["atlas"]
    assert not (sweep.out / "tracking").exists()


@pytest.mark.parametrize("artifact", ["exemplars", "evidence", "moments", "types", "explanations"])
def test_a_job_has_the_rows_of_a_run_by_itself(sweep, ray_of_two_cores, tmp_path_factory, artifact):
    alone = tmp_path_factory.getbasetemp() / "alone"
    if not alone.exists():
        small_run(alone, "capture.layers=[1]", data=(DATA,))
    assert Atlas(sweep.out).table(artifact).equals(Atlas(alone).table(artifact))


def test_its_jobs_are_below_its_own_run_which_holds_every_layer(sweep):
    client, runs = runs_in(sweep.out / "mlflow.db")
    parent, *jobs = runs
    assert [run.data.tags["mlflow.parentRunId"] for run in jobs] == [parent.info.run_id] * 2
    table = Path(client.download_artifacts(parent.info.run_id, "comparison.json"))
    compared = json.loads(table.read_text(encoding="utf-8"))
    rows = [dict(zip(compared["columns"], row, strict=True)) for row in compared["data"]]
    assert [row["layer"] for row in rows] == [0, None, 1, None]
    for row, job in zip(rows[1::2], jobs, strict=True):
        assert job.data.metrics["score/correlation"] == pytest.approx(row["correlation"])
        assert job.data.tags["strongest_control"] == row["strongest_control"]
    # No value of one layer is shown as the sweep's: by layer there are pictures and a table.
    groups = {name.split("/")[0] for name in parent.data.metrics}
    assert groups <= {"sweep", "seconds", "machine"}
    pictures = [file.path for file in client.list_artifacts(parent.info.run_id, "pictures")]
    assert sorted(pictures) == ["pictures/scores.png", "pictures/types.png"]
    assert f"scores.png&run_uuid={parent.info.run_id}" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["seconds/capture"] > 0
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"comparison", "comparison.json"} <= kept


def test_once_more_does_nothing_again_and_a_job_that_cannot_be_costs_no_other(sweep):
    again = call(sweep.folder, "0,1")
    assert again.returncode == 0
    assert "seconds    none: everything was already done" in again.stderr
    assert again.stderr.count("capture    already done (") == 3
    wrong = call(sweep.folder, "1,9,0")
    assert wrong.returncode == 2
    assert "neuron-atlas: capture.layers=9: " in wrong.stderr
    assert "sweep      2 of 3 jobs finished" in wrong.stderr


def test_a_sweep_that_is_stopped_goes_on_where_it_was(tmp_path):
    out = tmp_path / "out"
    swept = ("--multirun", DATA, *OF_LAYERS, "capture.layers=0,1,2", f"out={out}")
    with program(tmp_path / "1.log", *swept) as first:
        first.run_until(lambda: "job        2/3" in first.said())
        assert first.terminate() == 130
        assert "the same command goes on from there" in first.said()
        assert "sweep      1 of 3 jobs finished" in first.said()
    with program(tmp_path / "2.log", *swept) as second:
        assert second.end() == 0
        assert "capture    already done (" in second.said()
        assert "sweep      3 of 3 jobs finished" in second.said()
    _, runs = runs_in(out / "mlflow.db")
    parents = [run.info.status for run in runs if "jobs" in run.data.tags]
    assert parents == ["KILLED", "FINISHED"]
