"""The settings of servers that a run starts for its simulator's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class ServersSettings:
    """Servers of one model, each a process in a Python environment of its own.

    command: the program and its arguments, with further `arguments` after them; {host}, {port} and
    {number} in them stand for the address to listen on and the server's number (from 0).
    environment: variables added to those of this program, where {number} may stand too; null
    removes one. count: servers; None for one on each `gpus` GPUs of the cluster, or one if it has
    none. gpus: of each server, on a cluster with GPUs.
    start_s: a server must answer within this time (s), also when it is started again: calls wait
    that long for it. max_restarts: of one server within an hour; one that has never answered is
    started again once at most. stop_s: time (s) to end by itself before it is killed.
    """

    command: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    count: AtLeastOne | None = None
    gpus: Annotated[int, Ge(0)] = 1
    start_s: Annotated[float, Gt(0)] = 900.0
    max_restarts: Annotated[int, Ge(0)] = 5
    stop_s: Annotated[float, Gt(0)] = 10.0

    def __post_init__(self) -> None:
        if not any("{port}" in word for word in self.words):
            raise ValueError(
                "command: must give the server its port, such as with --port and {port} after it"
            )

    def check(self) -> None:
        """Raise Unusable if the program is a path that does not exist on this machine."""
        program = self.words[0]
        if "/" in program and not Path(program).expanduser().exists():
            raise Unusable(
                f"simulate.servers.command: there is no {program}. Install vLLM in an environment "
                "of its own (make vllm), and set VLLM_PYTHON or simulate.servers.command.0 to its "
                "Python if that is elsewhere"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The whole command."""
        return self.command + self.arguments
