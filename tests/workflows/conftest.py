"""One Ray and one small run, shared by all tests of the workflows."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from neuron_atlas.workflows.atlas import main
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.context import Context
from tests.loopback.provider import KEY
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
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A database that exists already, for tests that do not look at it."""
    folder = tmp_path_factory.getbasetemp() / "shared-mlflow"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return folder
