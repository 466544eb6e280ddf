"""Samples with made-up activations, and what a record of them must say, worked out the slow way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuron_atlas.tasks.artifacts import in_shard, layer_file, write_table
from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.capture.observe import observe
from neuron_atlas.tasks.capture.record import LayerRecord, empty_record
from neuron_atlas.tasks.capture.record_tables import layer_tables
from neuron_atlas.tasks.subject.batches import Batch, collate, padded_length
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, VISUAL, EncodedSample

NEURONS = 6
CPU = torch.device("cpu")


@dataclass(frozen=True)
class SyntheticSample:
    """One sample: what it is to the subject, and what the neurons do, float32 [tokens, neurons]."""

    sample_id: int
    encoded: EncodedSample
    activations: np.ndarray

    @property
    def visual(self) -> np.ndarray:
        """Activations at its visual tokens."""
        return self.activations[self.encoded.roles.numpy() == VISUAL]

    @property
    def text(self) -> np.ndarray:
        """Activations at its text tokens."""
        return self.activations[self.encoded.roles.numpy() == TEXT]

    @property
    def peak(self) -> np.ndarray:
        """Highest activation over visual and text tokens [neurons]."""
        return np.concatenate([self.visual, self.text]).max(0)


def make_sample(sample_id: int, values: int = 30, silent: bool = False) -> SyntheticSample:
    """A sample of 4 or 6 visual tokens and 1 to 6 text tokens, or none; its id decides all else.

    Activations are one of a few values, so that peaks of different samples are often equal, and
    the template's are the highest of all, so that it shows where they are taken for evidence.
    """
    rng = np.random.default_rng([5, sample_id])
    grid = (2, int(rng.integers(2, 4)))
    n_text = 0 if silent else int(rng.integers(1, 7))
    roles = [TEMPLATE] * 2 + [VISUAL] * (grid[0] * grid[1]) + [TEMPLATE] + [TEXT] * n_text
    activations = rng.integers(-values, values, (len(roles), NEURONS)).astype(np.float32) / 8
    activations[np.array(roles) == TEMPLATE] += values
    encoded = EncodedSample(
        input_ids=torch.from_numpy(rng.integers(5, 99, len(roles))),
        roles=torch.tensor(roles, dtype=torch.int8),
        inputs={"pixel_values": torch.zeros(1, 3, 2, 2)},
        pieces=("x",) * n_text,
        regions=(Region(0, *grid, 0, 0, 1, 1),),
    )
    return SyntheticSample(sample_id, encoded, activations)


def record(
    samples: Sequence[SyntheticSample],
    top_n: int,
    batch_size: int,
    take_in: Callable[[LayerRecord, torch.Tensor, Batch], None] = observe,
    top_activations: int = 8,
) -> LayerRecord:
    """Let a record observe the samples in batches."""
    mine = empty_record(NEURONS, top_n, CPU, top_activations=top_activations)
    for activations, batch in batched(samples, batch_size):
        take_in(mine, activations, batch)
    return mine


def batched(
    samples: Sequence[SyntheticSample], batch_size: int
) -> Iterator[tuple[torch.Tensor, Batch]]:
    """The samples' activations in batches of one padded length; padding is as excited as can be."""
    for length in sorted({padded_length(sample.encoded) for sample in samples}):
        same = [sample for sample in samples if padded_length(sample.encoded) == length]
        for start in range(0, len(same), batch_size):
            group = same[start : start + batch_size]
            values = torch.full((len(group), length, NEURONS), 999.0)
            for row, sample in enumerate(group):
                values[row, : len(sample.activations)] = torch.from_numpy(sample.activations)
            yield values, collate([s.sample_id for s in group], [s.encoded for s in group])


def shard(folder: Path, samples: Sequence[SyntheticSample], top_n: int) -> Path:
    """Record the samples and write them as a shard of layer 4."""
    mine = record(samples, top_n, batch_size=3)
    for table_spec, table in layer_tables(4, mine):
        spec = in_shard(table_spec)
        write_table(table, spec, folder / layer_file(spec, 4))
    return folder


def ranked(samples: Sequence[SyntheticSample], neuron: int, top_n: int) -> list[SyntheticSample]:
    """The samples that excite a neuron most: equal peaks by sample_id."""
    return sorted(samples, key=lambda s: (-s.peak[neuron], s.sample_id))[:top_n]
