"""Running moments of every neuron, apart for each role."""

from __future__ import annotations

import torch

from tasks.artifacts import ROLES


class Moments:
    """Counts, sums and maxima over all tokens seen, [roles, neurons] on the subject's device.

    A batch is added up in float32 and the batches in float64. So a mean is known to about a
    millionth of the largest activations, and a sum of squared deviations to about a millionth of
    n mean^2 + m2: enough for spreads down to a thousandth of their mean.
    """

    def __init__(self, neurons: int, device: torch.device) -> None:
        shape = (len(ROLES), neurons)
        self.tokens = torch.zeros(len(ROLES), dtype=torch.float64, device=device)
        self.total = torch.zeros(shape, dtype=torch.float64, device=device)
        self.squares = torch.zeros(shape, dtype=torch.float64, device=device)
        self.positive = torch.zeros(shape, dtype=torch.float64, device=device)
        self.maximum = torch.full(shape, -torch.inf, dtype=torch.float32, device=device)

    def add(self, activations: torch.Tensor, membership: torch.Tensor) -> None:
        """Add activations [tokens, neurons]; membership float32 [roles, tokens] is 1 or 0."""
        values = activations.float()
        self.tokens += membership.sum(1, dtype=torch.float64)
        self.total += membership @ values
        self.squares += membership @ values.square()
        self.positive += membership @ (values > 0).float()

    def mean_and_m2(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Means, and sums of squared deviations from them, float64 [roles, neurons]."""
        n = self.tokens.clamp(min=1)[:, None]
        mean = self.total / n
        return mean, (self.squares - n * mean.square()).clamp(min=0)

    def raise_maximum(self, role: int, peaks: torch.Tensor) -> None:
        """Take peaks [samples, neurons] of one role into its maximum."""
        torch.maximum(self.maximum[role], peaks.float().amax(0), out=self.maximum[role])
