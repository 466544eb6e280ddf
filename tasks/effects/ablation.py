"""Exact ablation: many neurons and samples in one batch, another neuron in every row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.subject.batches import collate, padded_length
from neuron_atlas.tasks.subject.encode import TEXT, EncodedSample
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject

Samples = Callable[[], Iterable[tuple[int, EncodedSample]]]


@dataclass(frozen=True)
class Ablation:
    """One neuron, set to a value at every token of one sample."""

    sample_id: int
    layer: int
    neuron: int
    value: float = 0.0


@dataclass(frozen=True)
class _Row:
    """A row of a batch. ablation: index of its ablation; None for the sample unchanged."""

    sample_id: int
    encoded: EncodedSample
    ablation: int | None


def loss_changes(
    subject: Subject,
    ablations: Sequence[Ablation],
    samples: Samples,
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> list[np.ndarray]:
    """Return, for each ablation, the exact change of the loss of every text token of its sample:
    float32 [n_text], in nats.

    samples: yields each sample of the ablations once, samples of one length next to each other. A
    batch also holds its samples unchanged, so both losses come from one pass, and rounding that
    depends on the shape of a batch cancels. on_batch: called with the number of ablations of each
    batch. Raises SubjectError, and InterventionError for a value that overflows.
    """
    changes: list[np.ndarray] = []
    of_sample: dict[int, list[int]] = {}
    # Rows of one layer come together, so a batch changes the activations of few layers.
    for index in sorted(range(len(ablations)), key=lambda one: ablations[one].layer):
        of_sample.setdefault(ablations[index].sample_id, []).append(index)

    def attempt(size: int, count: Callable[[int], None]) -> None:
        changes[:] = [np.zeros(0, np.float32)] * len(ablations)
        rows = (
            (sample_id, encoded, of_sample.get(sample_id, [])) for sample_id, encoded in samples()
        )
        for batch in _batches(rows, max(2, size)):
            for index, change in _run(subject, batch, ablations, hook_point):
                changes[index] = change
            count(sum(row.ablation is not None for row in batch))

    fit_batch(batch_size, attempt, on_batch, "ablation", "use a device with more memory")
    return changes


def _batches(
    rows: Iterable[tuple[int, EncodedSample, Sequence[int]]], size: int
) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    for sample_id, encoded, ablations in rows:
        for index in ablations:
            is_there = any(row.sample_id == sample_id for row in batch)
            is_full = len(batch) + (1 if is_there else 2) > size
            if batch and (is_full or padded_length(batch[0].encoded) != padded_length(encoded)):
                yield batch
                batch, is_there = [], False
            if not is_there:
                batch.append(_Row(sample_id, encoded, None))
            batch.append(_Row(sample_id, encoded, index))
    if batch:
        yield batch


def _run(
    subject: Subject, rows: Sequence[_Row], ablations: Sequence[Ablation], hook_point: HookPoint
) -> Iterator[tuple[int, np.ndarray]]:
    batch = collate([row.sample_id for row in rows], [row.encoded for row in rows])
    interventions = [
        Intervention(one.layer, (one.neuron,), "set", one.value, rows=(place,))
        for place, row in enumerate(rows)
        if row.ablation is not None
        for one in (ablations[row.ablation],)
    ]
    with (
        intervening(subject, interventions, hook_point, batch.roles, in_place=True),
        torch.inference_mode(),
    ):
        losses = text_losses(subject, batch.to(subject.device)).cpu().numpy()
    is_text = (batch.roles == TEXT).numpy()
    unchanged = {
        row.sample_id: losses[place] for place, row in enumerate(rows) if row.ablation is None
    }
    for place, row in enumerate(rows):
        if row.ablation is not None:
            change = losses[place] - unchanged[row.sample_id]
            yield row.ablation, change[is_text[place]]
