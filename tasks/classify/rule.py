"""Protocols of classification rules. To add a rule, add a file here and one in conf/classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import pyarrow as pa


class Rule(Protocol):
    """Rule that types neurons by their exemplars and moments.

    Implementations subclass this class and are frozen dataclasses of their settings.
    """

    @property
    def top_n(self) -> int | None:
        """Number of exemplars that vote; None for all captured ones."""

    def activations_needed(self) -> Mapping[str, int]:
        """Return how many of an exemplar's highest activations the rule reads, by setting."""
        return {}

    def types(self, exemplars: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the `types` rows of one layer's neurons (the neurons in `moments`)."""


@runtime_checkable
class RuleWithTests(Rule, Protocol):
    """Rule that also tests the neurons. Its q-values need the tests of all layers."""

    def test(self, histograms: pa.Table) -> pa.Table:
        """Return the `tested_types` rows of one layer's neurons, without q and type_tested."""

    def decide(self, tested: pa.Table) -> pa.Table:
        """Return `tested_types` rows with type_tested filled in; their q-values must be set."""
