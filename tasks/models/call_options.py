"""Parameters of calls to a model."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_atlas.tasks.models.account.messages import Account
from neuron_atlas.tasks.models.request_file import RequestFile
from neuron_atlas.tasks.models.servers import Servers


@dataclass(frozen=True)
class CallOptions:
    """How calls to a model are sent. Picklable if its parts are.

    account: limits, budget and answers; None for an account of the connection's own, in memory,
    with the limits of the settings. file: where requests are written instead of being sent. group:
    the config group of the model; errors name `<group>.client...`. servers: the servers of the
    model, contacted without a proxy; None is the address in the settings.
    """

    account: Account | None = None
    file: RequestFile | None = None
    group: str = "explain"
    servers: Servers | None = None
