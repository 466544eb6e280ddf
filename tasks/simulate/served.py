"""A simulator whose model runs on given servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.servers import Servers
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.simulator import Capabilities, Prediction, Question, Simulator


class Served(Simulator):
    """Sends a simulator's calls to `servers` instead of its client's address."""

    def __init__(self, simulator: Simulator, servers: Servers) -> None:
        self.name, self.client, self.prices = simulator.name, simulator.client, simulator.prices
        self.servers = servers
        self._simulator = simulator

    def probe(self, calls: Calls) -> Capabilities | None:
        """See `Simulator`."""
        return self._simulator.probe(replace(calls, servers=self.servers))

    def assumed(self) -> Capabilities | None:
        """See `Simulator`."""
        return self._simulator.assumed()

    def simulate(
        self,
        questions: Sequence[Question],
        catalog: Catalog,
        calls: Calls,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`."""
        calls = replace(calls, servers=self.servers)
        return self._simulator.simulate(questions, catalog, calls, capabilities)
