"""What every caller of a model is given."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_atlas.tasks.models.account.messages import Account
from neuron_atlas.tasks.models.request_file import RequestFile
from neuron_atlas.tasks.models.servers import Servers


@dataclass(frozen=True)
class Calls:
    """How calls to a model go out; it can be sent to other processes if its parts can.

    account: limits, budget and answers; None for an account of the connection's own, in memory,
    with the limits of the settings. file: where requests are written instead of being sent. group:
    the settings of the model; errors name `<group>.client...`. servers: where the model is served,
    never reached through a proxy; None is the address in the settings.
    """

    account: Account | None = None
    file: RequestFile | None = None
    group: str = "explain"
    servers: Servers | None = None
