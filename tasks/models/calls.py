"""What all who ask models share: the journal with its budget, and the limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from neuron_atlas.tasks.models.journal import Journal, NoJournal
from neuron_atlas.tasks.models.limits import Limits
from neuron_atlas.tasks.models.servers import Servers
from neuron_atlas.tasks.models.spool import Spool


@dataclass(frozen=True)
class Calls:
    """Passed to whoever asks a model; it can be sent to other processes if its parts can.

    limits: None for those of the settings, kept by each connection for itself. spool: where
    requests are written down instead of being sent; None sends each at once. outbox: the folder
    where an answer is kept until the journal has it (see `Outbox`); None is nowhere. group: of the
    settings that say which model is asked: errors name `<group>.client...`. servers: where the
    model is served; None is the address in the settings.
    """

    journal: Journal = field(default_factory=NoJournal)
    limits: Limits | None = None
    spool: Spool | None = None
    outbox: Path | None = None
    group: str = "explain"
    servers: Servers | None = None
