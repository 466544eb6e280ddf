"""Fixtures of all tests, and the scheduler that spreads them over several processes."""

from __future__ import annotations

import pytest
from xdist.remote import Producer

from tests.schedule import ModuleScheduling

pytest_plugins = ["tests.loopback.fixture", "tests.loopback.object_store"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ModuleScheduling:
    return ModuleScheduling(config, log)
