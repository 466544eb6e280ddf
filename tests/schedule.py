"""Spread the suite over several processes: whole modules, the longest first."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

ON_RAY = "ray_of_two_cores"
"""Group of the modules that share one Ray and the small run on it."""
LONGEST = (
    ON_RAY,
    "tests/workflows/test_resume.py",
    "tests/docs/test_commands.py",
    "tests/infra/test_package.py",
)
"""Groups that take longest, in that order."""

_ROOT = Path(__file__).parents[1]
_SHARED = re.compile(r"\b(?:ray_of_two_cores|first_run)\b")
"""Session fixtures that only one process should set up."""


@cache
def group_of(module: str) -> str:
    """Return the group of a module: its own path, or ON_RAY. module: relative to the root."""
    text = (_ROOT / module).read_text(encoding="utf-8")
    return ON_RAY if _SHARED.search(text) else module


class ModuleScheduling(LoadScopeScheduling):
    """Scheduler that gives a process a whole group, so that a module's fixtures are set up once.

    xdist's own `loadgroup` has no effect with pytest 9.2, which ignores the id that it sets.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])

    def _assign_work_unit(self, node: WorkerController) -> None:
        longest = next((group for group in LONGEST if group in self.workqueue), None)
        if longest is not None:
            self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)
