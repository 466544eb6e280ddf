"""Latents of a top-k SAE, of which few are active at each token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class ActiveEntries:
    """Latents that are not 0, in order of sample, latent and token.

    key: int64 [entries], (sample * latents + latent) * tokens + token. sample, latent, token: int64
    [entries]. value: float32 [entries], above 0 or not finite.
    """

    key: torch.Tensor
    sample: torch.Tensor
    latent: torch.Tensor
    token: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True)
class SparseLatents:
    """Latents of a batch as the k selected ones of each token; all others are 0.

    values: [batch, tokens, k], 0 or above, or not finite. indices: int64 [batch, tokens, k], the
    latent of each value; all of a token differ. count: number of latents.
    """

    values: torch.Tensor
    indices: torch.Tensor
    count: int

    @property
    def device(self) -> torch.device:
        """Device of the latents."""
        return self.values.device

    def of_samples(self, samples: slice) -> SparseLatents:
        """Return the latents of some samples of the batch."""
        return SparseLatents(self.values[samples], self.indices[samples], self.count)

    @cached_property
    def entries(self) -> ActiveEntries:
        """The latents that are not 0."""
        sample, token, place = self.values.nonzero(as_tuple=True)
        latent = self.indices[sample, token, place]
        key, order = ((sample * self.count + latent) * self.values.shape[1] + token).sort()
        value = self.values[sample, token, place].float()
        return ActiveEntries(key, sample[order], latent[order], token[order], value[order])

    def n_active(self, sample: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Return the number of tokens at which a latent is not 0: int64 [pairs].

        sample, latent: int64 [pairs].
        """
        start, stop = self._ranges(sample, latent)
        return stop - start

    def rows(self, sample: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Return a latent at all tokens of a sample: float32 [pairs, tokens].

        sample, latent: int64 [pairs].
        """
        start, stop = self._ranges(sample, latent)
        pair = torch.arange(len(start), device=self.device).repeat_interleave(stop - start)
        # The place of an entry among those of its pair is its place among all, from the first.
        first = (stop - start).cumsum(0) - (stop - start)
        entry = torch.arange(len(pair), device=self.device) + (start - first)[pair]
        rows = self.entries.value.new_zeros(len(start), self.values.shape[1])
        rows[pair, self.entries.token[entry]] = self.entries.value[entry]
        return rows

    def _ranges(
        self, sample: torch.Tensor, latent: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the entries of each pair start and stop."""
        tokens = self.values.shape[1]
        key = (sample * self.count + latent) * tokens
        return torch.searchsorted(self.entries.key, key), torch.searchsorted(
            self.entries.key, key + tokens
        )


def rows_at(
    activations: torch.Tensor | SparseLatents, sample: torch.Tensor, neuron: torch.Tensor
) -> torch.Tensor:
    """Return a neuron at all tokens of a sample: [pairs, tokens].

    activations: [batch, tokens, neurons]. sample, neuron: int64 [pairs].
    """
    if isinstance(activations, SparseLatents):
        return activations.rows(sample, neuron)
    return activations[sample, :, neuron]
