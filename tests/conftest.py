"""Fixtures of all tests, and how several processes share the suite."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.loopback.fixture", "tests.loopback.object_store"]
_ON_RAY = "ray_of_two_cores"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the modules that share one Ray to one process, and any other module as a whole to one.

    A module's fixtures are then set up once.
    """
    functions = [item for item in items if isinstance(item, pytest.Function)]
    on_ray = {item.path for item in functions if _ON_RAY in item.fixturenames}
    for item in items:
        group = _ON_RAY if item.path in on_ray else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
