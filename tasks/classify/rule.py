"""The protocol of classification rules. A new rule is a file here and one in conf/classify."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pyarrow as pa


class Rule(Protocol):
    """Gives a neuron its type from its traces and moments.

    Implementations are frozen dataclasses of their settings, and subclasses of this class.
    """

    @property
    def top_n(self) -> int | None:
        """Number of exemplars that vote; None for all captured ones."""

    def types(self, traces: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the `types` rows of one layer's neurons, those in `moments`."""


@runtime_checkable
class RuleWithTests(Rule, Protocol):
    """A rule that also tests the neurons. Its q-values need all layers together."""

    def test(self, histograms: pa.Table) -> pa.Table:
        """Return the `tested_types` rows of one layer's neurons, without q and type_tested."""

    def decide(self, tested: pa.Table) -> pa.Table:
        """Fill in type_tested in `tested_types` rows that have their q."""
