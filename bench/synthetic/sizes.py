"""Sizes of a synthetic atlas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of a synthetic atlas.

    neurons: per layer. grid: rows and columns of visual tokens. held_out: neurons per layer with
    simulated traces. unexplained: every n-th neuron has no explanation.
    """

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
        """Number of neurons per layer with simulated traces."""
        return min(self.held_out, self.neurons)
