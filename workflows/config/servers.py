"""Settings of the servers that a run starts for its simulator's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class ServersSettings:
    """Settings of the servers of one model. Each is a process in its own Python environment.

    command: the program and its first arguments; `arguments` follow them. {host}, {port} and
    {number} in them are replaced by the address to listen on and the server's number (from 0).
    environment: variables to add to this program's, also with {number}; null removes a variable.
    count: number of servers; None starts one for each `gpus` GPUs of the cluster, or one in total
    if it has no GPUs. gpus: GPUs of each server, on a cluster with GPUs. start_timeout_s: time (s)
    in which a server must answer after a start or restart; calls wait that long. max_restarts: of
    one server within an hour; one that has never answered is restarted once at most.
    stop_timeout_s: time (s) to exit by itself before it is killed. Raises ValueError if the command
    lacks {port}.
    """

    command: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    count: AtLeastOne | None = None
    gpus: Annotated[int, Ge(0)] = 1
    start_timeout_s: Annotated[float, Gt(0)] = 900.0
    max_restarts: Annotated[int, Ge(0)] = 5
    stop_timeout_s: Annotated[float, Gt(0)] = 10.0

    def __post_init__(self) -> None:
        if not any("{port}" in word for word in self.command_line):
            raise ValueError(
                "command: must pass the port to the server, such as with --port {port}"
            )

    def check(self) -> None:
        """Raise ProviderError if the program is a path that does not exist on this machine."""
        program = self.command_line[0]
        if "/" in program and not Path(program).expanduser().exists():
            raise ProviderError(
                f"simulate.servers.command: there is no {program}. Install vLLM in its own "
                "environment (make vllm), or set VLLM_PYTHON or simulate.servers.command.0 to the "
                "Python of an existing one"
            )

    @property
    def command_line(self) -> tuple[str, ...]:
        """The command with all its arguments."""
        return self.command + self.arguments
