"""How servers of a model are started, and for how long one may fail before it is given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt

from neuron_atlas.tasks.settings import AtLeastOne

PORT, HOST, NUMBER = "{port}", "{host}", "{number}"
"""What stands in a command for what is only known once a server is started."""

_Seconds = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class ServersSettings:
    """Servers of one model, each a process in an environment of its own.

    command: the program and its arguments, with further `arguments` behind them; {port}, {host} and
    {number} in them stand for where the server shall listen and which one it is (from 0).
    environment: variables beside those of the program, in which {number} may stand too; null takes
    one away. count: servers; None for one on each `gpus` GPUs of the cluster, or one where it has
    none. gpus: of each server, on a cluster that has some.
    start_s: by then (s) a server must answer. unhealthy_s: one that does not answer for so long is
    started again. max_restarts: of one server within an hour. stop_s: how long one has to end by
    itself before it is killed.
    """

    command: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    count: AtLeastOne | None = None
    gpus: Annotated[int, Ge(0)] = 1
    start_s: _Seconds = 900.0
    unhealthy_s: _Seconds = 60.0
    max_restarts: Annotated[int, Ge(0)] = 5
    stop_s: _Seconds = 10.0

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command: must be the server's program and its arguments")
        if not any(PORT in word for word in self.words):
            raise ValueError(
                f"command: must tell the server its port, such as with --port and {PORT} behind it"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The whole command."""
        return self.command + self.arguments
