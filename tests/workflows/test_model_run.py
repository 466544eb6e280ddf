"""Whole runs with a simulator that loads a model: earlier stages are those of the shared run."""

import shutil
from pathlib import Path

import pytest

from neuron_atlas.workflows.run.context import Context
from tests.small_clipseg import build
from tests.workflows.runs import Atlas, small_run

pytestmark = pytest.mark.slow

PARTS = "explain.neurons_per_task=8"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("clipseg") / "model")


@pytest.fixture(scope="module")
def copied(first_run: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared run in a folder that may be changed, up to where its neurons were explained."""
    folder = tmp_path_factory.mktemp("copied") / "atlas"
    shutil.copytree(first_run.store.out, folder)
    shutil.rmtree(folder / "artifacts" / "explain")  # To be cut into smaller parts.
    return folder


def run(out: Path, model: Path, log: Path, *overrides: str) -> Context:
    return small_run(
        out,
        "simulate=clipseg",
        "simulate._target_=tests.workflows.counting.CountedClipSeg",
        f"simulate.model={model}",
        f"+simulate.log={log}",
        PARTS,
        *overrides,
    )


@pytest.fixture(scope="module")
def log(copied: Path, model: Path) -> list[str]:
    """The loadings of a run with two actors, whose atlas lies in `copied`."""
    path = copied.parent / "loadings"
    run(copied, model, path, "cluster.actors=2")
    return path.read_text(encoding="utf-8").splitlines()


def test_each_actor_loads_the_model_once_for_all_its_parts(log, copied):
    parts = len(Atlas(copied).files("simulations"))
    processes = {line.split()[0] for line in log}
    assert parts > 4 > len(log) == len(processes) >= 1
    assert {line.split(maxsplit=1)[1] for line in log} == {"cpu 1"}


def test_what_it_says_nothing_of_is_null_and_has_no_score(log, copied):
    simulations = Atlas(copied).table("simulations")
    own = [row for row in simulations.to_pylist() if row["status"] == "ok"]
    assert {row["text"] for row in own} == {None}
    assert {len(row["visual"]) for row in own} == {64}
    scores = Atlas(copied).table("scores").to_pylist()
    status = {
        tokens: {row["status"] for row in scores if row["tokens"] == tokens and row["n_samples"]}
        for tokens in ("all", "visual", "text")
    }
    assert status == {"all": {"ok"}, "visual": {"ok"}, "text": {"not_predicted"}}
    by_tokens = [[row["correlation"] for row in scores[start::3]] for start in range(3)]
    assert by_tokens[0] == by_tokens[2]
    assert set(by_tokens[1]) == {None}
    assert any(by_tokens[0])


def test_the_rows_are_the_same_for_any_number_of_actors(log, copied, model, tmp_path):
    expected = Atlas(copied).table("simulations")
    shutil.rmtree(copied / "artifacts" / "simulate")
    run(copied, model, tmp_path / "log", "cluster.actors=1")
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert Atlas(copied).table("simulations").equals(expected)


def test_other_weights_simulate_anew_and_the_same_elsewhere_do_not(log, copied, model, tmp_path):
    moved = Path(shutil.copytree(model, tmp_path / "moved"))
    skipped = run(copied, moved, tmp_path / "log").stats.skipped
    assert "simulate" in skipped
    build(moved, seed=1)
    skipped = run(copied, moved, tmp_path / "log").stats.skipped
    assert "explain" in skipped
    assert "simulate" not in skipped


def test_a_model_that_is_not_there_ends_the_call_in_one_line(ended, tmp_path):
    status, said = ended(
        f"out={tmp_path / 'out'}", "simulate=clipseg", f"simulate.model={tmp_path}/none"
    )
    assert status == 2
    (line,) = [line for line in said.splitlines() if line.startswith("neuron-atlas:")]
    assert line == (
        f"neuron-atlas: simulate.model: there is no folder '{tmp_path}/none'; name a folder with a "
        "saved model, or a Hugging Face id such as owner/name"
    )
    assert not list((tmp_path / "out" / "artifacts").glob("capture*"))
