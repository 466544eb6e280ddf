"""A run that nothing happens to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
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
    """The artifacts of a run whose rows are not those of the undisturbed one.

    Means over samples, as in `moments`, may differ in their last digits: shards that are cut
    otherwise are added up in another order.
    """

    def compare(out: Path) -> list[str]:
        mine = Atlas(out)
        return [name for name in SPECS if not alike(mine.table(name), undisturbed.table(name))]

    return compare


def alike(first: pa.Table, second: pa.Table) -> bool:
    """Whether all is the same but for the last digits of numbers that stand alone in a column."""
    numbers = [field.name for field in first.schema if pa.types.is_floating(field.type)]
    return same(first.drop(numbers), second.drop(numbers)) and all(
        np.allclose(*(table[name].to_numpy() for table in (first, second)), 1e-6, 1e-6, True)
        for name in numbers
    )
