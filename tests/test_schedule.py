"""The scheduler that spreads the suite over several processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.loopback.fixture import ROOT
from tests.schedule import LONGEST, ON_RAY, ModuleScheduling, group_of

MODULES = [
    "tests/workflows/test_resume.py",
    "tests/docs/test_links.py",
    "tests/infra/test_slurm.py",
]


class Node:
    """Stand-in for a test process that records the tests it gets."""

    shutting_down = False
    gateway = SimpleNamespace(id="gw")

    def __init__(self) -> None:
        self.got: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.got += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def test_a_module_is_run_by_one_process_and_the_longest_first():
    tests = [f"{module}::test_{number}" for number in range(4) for module in reversed(MODULES)]
    nodes = [Node(), Node()]
    option = SimpleNamespace(loadscopereorder=True)
    config = SimpleNamespace(option=option, getvalue=lambda _: [f"{len(nodes)}*popen"])
    scheduling = ModuleScheduling(config)
    for node in nodes:
        scheduling.add_node(node)
        scheduling.add_node_collection(node, tests)
    scheduling.schedule()
    got = [[tests[index].partition("::")[0] for index in node.got] for node in nodes]
    assert got[0] == [MODULES[0]] * 4
    assert got[1] in ([module] * 4 for module in MODULES[1:])
    for index in nodes[1].got:
        scheduling.mark_test_complete(nodes[1], index)
    assert len(nodes[1].got) == 8


def test_the_modules_whose_tests_share_a_ray_are_one_group(request):
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    on_ray = [item.nodeid for item in functions if "ray_of_two_cores" in item.fixturenames]
    assert {group_of(nodeid.partition("::")[0]) for nodeid in on_ray} <= {ON_RAY}


def test_the_groups_that_take_longest_exist():
    assert all((ROOT / group).is_file() for group in LONGEST if group != ON_RAY)
