"""How large a made-up atlas is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How large: held_out neurons of each layer have simulated traces; every `unexplained`th
    neuron has no explanation."""

    layers: tuple[int, ...] = (0, 1)
    neurons: int = 64
    samples: int = 40
    grid: int = 4
    text_tokens: int = 12
    top_n: int = 6
    held_out: int = 64
    unexplained: int = 8

    @property
    def with_held_out(self) -> int:
        """Neurons of a layer that have simulated traces."""
        return min(self.held_out, self.neurons)
