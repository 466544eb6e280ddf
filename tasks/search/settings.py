"""Settings of the `search` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the `search` stage.

    exemplars: strongest exemplars whose peaks make a neuron's vector. neighbors: nearest neurons
    that are stored for each neuron and role.
    """

    exemplars: AtLeastOne = 20
    neighbors: AtLeastOne = 10
