"""Run the subject over samples and record the activations of every neuron in some layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from neuron_atlas.tasks.capture.observe import observe
from neuron_atlas.tasks.capture.record import (
    EVIDENCE,
    LayerRecord,
    empty_record,
    joined,
    stored_dtype,
)
from neuron_atlas.tasks.capture.routed import routed_only
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch, batches
from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.hook_points import (
    layer_device,
    neurons_of_parts,
    observing_active,
)
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents
from neuron_atlas.tasks.subject.settings import HookPoint

Samples = Callable[[], Iterable[tuple[int, EncodedSample]]]
"""Returns an iterator over (sample_id, encoded sample); every call starts at the first sample."""


@dataclass(frozen=True)
class RecordSpec:
    """What to record of each layer.

    peak_roles: the roles over which a sample's peak is taken. top_activations: highest activations
    stored per exemplar and role.
    """

    layers: Sequence[int]
    hook_point: HookPoint
    top_n: int
    peak_roles: tuple[int, ...] = EVIDENCE
    top_activations: int = 8


def capture(
    subject: Subject,
    samples: Samples,
    recording: RecordSpec,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> dict[int, LayerRecord]:
    """Stream samples through the subject once and return the record of each layer.

    on_batch: called with the number of samples of each batch; if the pass fails, called with the
    negative total. Raises SubjectError if memory runs out with a batch of one sample, or if a
    layer cannot be hooked.
    """
    records: dict[int, list[LayerRecord]] = {}

    def attempt(size: int, count: Callable[[int], None]) -> None:
        records.clear()
        records.update(_empty_records(subject, recording))
        _stream(subject, samples(), records, recording.hook_point, size, count)

    fit_batch(
        batch_size,
        attempt,
        on_batch,
        "capture",
        "lower capture.top_n, or capture fewer layers at a time",
    )
    return {layer: joined(records.pop(layer)) for layer in recording.layers}


def _empty_records(subject: Subject, recording: RecordSpec) -> dict[int, list[LayerRecord]]:
    """Return a record for each layer, or one for each expert of a layer with experts."""
    return {
        layer: [
            empty_record(
                neurons,
                recording.top_n,
                layer_device(subject, layer, recording.hook_point),
                recording.peak_roles,
                recording.top_activations,
                stored_dtype(
                    layer_device(subject, layer, recording.hook_point), subject.model.dtype
                ),
            )
            for neurons in neurons_of_parts(subject, recording.hook_point, layer)
        ]
        for layer in recording.layers
    }


def _stream(
    subject: Subject,
    samples: Iterable[tuple[int, EncodedSample]],
    records: dict[int, list[LayerRecord]],
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> None:
    batch_on: dict[torch.device, Batch] = {}

    def current(device: torch.device) -> Batch:
        if device not in batch_on:  # The subject's layers are spread over several devices.
            batch_on[device] = replace(batch_on[subject.device], inputs={}).to(device)
        return batch_on[device]

    def on_activations(layer: int, activations: torch.Tensor | SparseLatents) -> None:
        observe(records[layer][0], activations, current(activations.device))

    def on_expert(
        layer: int, expert: int, values: torch.Tensor, tokens: torch.Tensor | None
    ) -> None:
        batch = current(values.device)
        if tokens is not None:
            values, batch = routed_only(values, tokens, batch)
        observe(records[layer][expert], values, batch)

    with (
        observing_active(subject, list(records), hook_point, on_activations, on_expert),
        torch.inference_mode(),
    ):
        for batch in batches(samples, subject.batch_size(batch_size)):
            batch_on.clear()
            batch_on[subject.device] = batch.to(subject.device)
            forward_body(subject, batch_on[subject.device].inputs)
            on_batch(len(batch))
