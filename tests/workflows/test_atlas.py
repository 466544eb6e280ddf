"""What takes the place of the last run in its folder, and what MLflow is told of one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuron_atlas.workflows.run import runner
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import Store
from tests.workflows.runs import Atlas, runs_in, small_run


def manifests(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in [out / "manifest.json", *out.glob("runs/*.json")]}


@pytest.mark.parametrize("group", ["explain", "simulate"])
def test_a_dry_run_does_not_take_the_place_of_a_finished_run(
    first_run: Context,
    atlas: Atlas,
    shared_mlflow: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: str,
) -> None:
    small_run(atlas.out)
    before = manifests(atlas.out)
    estimated = []
    monkeypatch.setattr(runner, "dry_run", lambda stage, context: estimated.append(stage.name))
    context = small_run(atlas.out, f"{group}.dry_run=true")
    assert estimated == [group]
    assert group not in context.done
    assert manifests(atlas.out) == before


def test_a_run_whose_manifest_cannot_be_written_is_a_failed_one_in_mlflow(
    first_run: Context, atlas: Atlas, shared_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **about: object) -> Path:
        raise PermissionError("manifest.json: not allowed")

    monkeypatch.setattr(Store, "write_run", refuse)
    with pytest.raises(PermissionError):
        small_run(atlas.out, "tracking.run_name=no manifest")
    _, runs = runs_in(shared_mlflow / "mlflow.db")
    (run,) = [run for run in runs if run.info.run_name == "no manifest"]
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "manifest.json: not allowed"
