"""A run that nothing happens to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.clusters import running
from tests.workflows.faults.faults import atlas
from tests.workflows.runs import SPECS, Atlas
from tests.workflows.test_resume import same


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    folder = tmp_path_factory.mktemp("undisturbed")
    with running(atlas(folder / "out", "cluster.actors=1"), folder / "log") as run:
        assert run.end() == 0, run.said()
    return Atlas(folder / "out")


@pytest.fixture(scope="session")
def strange_tables(undisturbed: Atlas) -> Callable[[Path], list[str]]:
    """The artifacts of a run whose rows are not those of the undisturbed one."""

    def compare(out: Path) -> list[str]:
        return [name for name in SPECS if not same(Atlas(out).table(name), undisturbed.table(name))]

    return compare
