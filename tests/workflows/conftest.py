"""One Ray and one small run, shared by all tests of the workflows."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, wraps
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient

from neuron_atlas.workflows.atlas import main
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.tracking.local import LocalRuns
from tests.loopback.provider import KEY
from tests.workflows.kept_actors import kept_actors
from tests.workflows.runs import ROOT, Atlas, small_run

_THEIRS = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


@pytest.fixture(scope="session", autouse=True)
def nobody_elses_servers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in _THEIRS:
            patch.delenv(name, raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        # Of the programs that are started in other folders, and of Ray's workers.
        paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield


@pytest.fixture(scope="session")
def make_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Make an empty MLflow database at a path: by copying, because MLflow takes seconds."""

    @cache
    def empty() -> Path:
        path = tmp_path_factory.mktemp("empty") / "mlflow.db"
        MlflowClient(f"sqlite:///{path}").search_experiments()
        return path

    return lambda path: Path(shutil.copy(empty(), path))


@pytest.fixture(scope="session", autouse=True)
def copied_databases(make_database: Callable[[Path], Path]) -> Iterator[None]:
    """Give every run in this process that has no database a copied one."""
    init = LocalRuns.__init__

    @wraps(init)
    def with_database(self: LocalRuns, folder: Path) -> None:
        init(self, folder)
        if self._file is not None and not (folder / "mlflow.db").exists():
            make_database(folder / "mlflow.db")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalRuns, "__init__", with_database)
        yield


@pytest.fixture
def as_if_called() -> Iterator[None]:
    """Takes back what the entry point does to its process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", ""))
        GlobalHydra.instance().clear()
        yield
        GlobalHydra.instance().clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def ended(
    as_if_called: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[object, str]]:
    """Call the program in this process; its exit status and what it said."""

    def call(*overrides: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["neuron-atlas", *overrides])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().err

    return call


@pytest.fixture(scope="session")
def ray_of_two_cores(nobody_elses_servers: None) -> Iterator[None]:
    with ExitStack() as opened:
        # Workers inherit it; tests say themselves whether the driver has a key.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", KEY)
            opened.enter_context(cluster(ClusterSettings(cpus=2)))
        opened.enter_context(kept_actors())
        yield


@pytest.fixture(scope="session")
def first_run(ray_of_two_cores: None, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The small run that the tests look at; they may add to its folder, not take away."""
    return small_run(tmp_path_factory.mktemp("first") / "an atlas")


@pytest.fixture(scope="session")
def atlas(first_run: Context) -> Atlas:
    return Atlas(first_run.store.out)


@pytest.fixture
def shared_mlflow(
    tmp_path_factory: pytest.TempPathFactory,
    make_database: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A database that exists already, for tests that do not look at it."""
    folder = tmp_path_factory.getbasetemp() / "shared-mlflow"
    if not folder.exists():
        folder.mkdir()
        make_database(folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return folder
