"""Tasks that tell on which node they ran, so that a run can say how many nodes took part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import ray


@dataclass(frozen=True)
class Done:
    """What a piece of work returned, and the node that it was done on."""

    value: Any
    node: str


def task(max_retries: int = 3) -> Callable[[Callable[..., Any]], Any]:
    """A Ray task on any node of the cluster, as evenly as can be; see `arrived`.

    max_retries: times that it is done again after its process or its node died. What tasks write
    appears whole under a name of its own, so doing one twice changes nothing.
    """

    def made(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def on_some_node(*arguments: Any, **named: Any) -> Done:
            return done_here(function(*arguments, **named))

        # Ray would fill one node before it uses the next; files are read faster by several.
        return ray.remote(max_retries=max_retries, scheduling_strategy="SPREAD")(on_some_node)

    return made


def done_here(value: Any) -> Done:
    """A result with the node that this runs on."""
    return Done(value, ray.get_runtime_context().get_node_id())


_nodes: set[str] = set()


def arrived(value: Any) -> Any:
    """A result without its node, which is remembered until `take_nodes`."""
    if not isinstance(value, Done):
        return value
    _nodes.add(value.node)
    return value.value


def take_nodes() -> frozenset[str]:
    """The nodes of all results that arrived since this was last called."""
    taken = frozenset(_nodes)
    _nodes.clear()
    return taken


def put_nodes_back(taken: frozenset[str]) -> None:
    """Undo `take_nodes`: they belong to what is still going on."""
    _nodes.update(taken)
