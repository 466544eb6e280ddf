"""What a rule of typing must offer. A new one is a file here and a YAML file in conf/classify."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pyarrow as pa


class Rule(Protocol):
    """How a neuron gets its type from its traces and moments."""

    @property
    def top_n(self) -> int | None:
        """Exemplars that it asks for; None for all that were captured."""
        ...

    def types(self, traces: pa.Table, moments: pa.Table) -> pa.Table:
        """The `types` rows of one layer's neurons, those in `moments`."""
        ...


@runtime_checkable
class RuleWithTests(Rule, Protocol):
    """A rule that also tests the neurons, which for q-values takes all layers together."""

    def test(self, histograms: pa.Table) -> pa.Table:
        """The `tested_types` rows of one layer's neurons, without q and type_tested."""
        ...

    def decide(self, tested: pa.Table) -> pa.Table:
        """The same rows with their q, now with type_tested."""
        ...
