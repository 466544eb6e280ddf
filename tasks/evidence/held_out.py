"""Estimate how many samples of a neuron are held out to score it, before a subject runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from neuron_atlas.tasks.evidence.settings import EvidenceSettings
from neuron_atlas.tasks.evidence.split import split_samples
from neuron_atlas.tasks.samples.random_samples import draw_random

_ANY_SEED = -1
_MOST_SAMPLES = 400
"""Largest dataset that `samples_needed` considers."""


@dataclass(frozen=True)
class HeldOut:
    """Samples of the scorer: exemplars, and random samples."""

    exemplars: int
    random: int

    @property
    def n_scored(self) -> int:
        """Number of samples that a score compares: as many of each kind."""
        return 2 * min(self.exemplars, self.random)


def evidence_samples(
    sample_ids: Sequence[int], top_n: int, settings: EvidenceSettings
) -> tuple[list[int], list[int]]:
    """Return exemplars and random samples of a neuron that ranks the samples arbitrarily.

    top_n: exemplars that capture stores.
    """
    count = min(top_n, settings.exemplars or top_n)
    exemplars = draw_random(sample_ids, count, _ANY_SEED)
    drawn = draw_random(sample_ids, settings.random_samples, settings.seed)
    return exemplars, [one for one in drawn if one not in set(exemplars)]


def held_out(
    exemplars: Sequence[int], random: Sequence[int], images: Mapping[int, Collection[str]]
) -> HeldOut:
    """Return how many of a neuron's samples are held out. images: names of each sample's images."""
    purposes = split_samples(exemplars, random, images)
    return HeldOut(
        sum(purposes[one] == "scorer" for one in exemplars),
        sum(purposes[one] == "scorer" for one in random),
    )


def samples_needed(
    top_n_of: Callable[[int], int], settings: EvidenceSettings, min_samples: int
) -> int | None:
    """Return the smallest number of samples, each with an image of its own, from which neurons have
    a score; None if no number is large enough with these settings.

    top_n_of: returns the exemplars that capture stores for a number of samples.
    """
    for count in range(1, _MOST_SAMPLES):
        chosen = evidence_samples(range(count), top_n_of(count), settings)
        if held_out(*chosen, dict.fromkeys(range(count), ())).n_scored >= min_samples:
            return count
    return None
