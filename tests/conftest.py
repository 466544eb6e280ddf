"""Fixtures of all tests, and the scheduler that spreads them over several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest
from xdist.remote import Producer

from tests.schedule import ModuleScheduling

# Two processes of tests share the cores; threads of tiny models would wait for each other. Set
# before torch is imported, and inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.loopback.fixture", "tests.loopback.object_store"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()  # Imports make millions of objects, and next to no garbage.
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ModuleScheduling:
    return ModuleScheduling(config, log)
