"""The program without what guards it against one fault: unprotected WITHOUT SETTING...

The controls of the tests of faults: what they do must make this program fail.
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path


def without_retries() -> None:
    """Work whose process or node died is not done again."""
    import ray

    from neuron_atlas.workflows.cluster import actor_pool
    from neuron_atlas.workflows.run import items

    items._MAX_RETRIES = 0
    actor_pool._RemoteActor = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(
        actor_pool.PoolActor
    )
    actor_pool._MISSED_HEARTBEAT_S = math.inf


def without_resume() -> None:
    """What an earlier call finished is forgotten."""
    (out,) = (Path(word.removeprefix("out=")) for word in sys.argv if word.startswith("out="))
    shutil.rmtree(out / "artifacts", ignore_errors=True)


def without_defer_signals() -> None:
    """A first signal interrupts whatever is under way."""
    from neuron_atlas.workflows.cluster import signals

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signals._request_stop = interrupt


WITHOUT = {
    "retries": without_retries,
    "resume": without_resume,
    "defer_signals": without_defer_signals,
}

if __name__ == "__main__":
    WITHOUT[sys.argv.pop(1)]()
    from neuron_atlas.workflows.atlas import main

    main()
