"""Run the subject over samples and record the activations of every neuron in some layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from neuron_atlas.tasks.capture.observe import observe
from neuron_atlas.tasks.capture.record import (
    EVIDENCE,
    LayerRecord,
    empty_record,
    stored_dtype,
)
from neuron_atlas.tasks.models.out_of_memory import is_out_of_memory
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch, batches
from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.hook_points import layer_device, neurons_per_layer, observing
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError

Samples = Callable[[], Iterable[tuple[int, EncodedSample]]]
"""Returns an iterator over (sample_id, encoded sample); every call starts at the first sample."""

_log = logging.getLogger(__name__)


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
    records: dict[int, LayerRecord] = {}

    def attempt(size: int) -> None:
        records.clear()
        records.update(_empty_records(subject, recording))
        n_done = 0

        def count(n_samples: int) -> None:
            nonlocal n_done
            n_done += n_samples
            on_batch(n_samples)

        try:
            _stream(subject, samples(), records, recording.hook_point, size, count)
        except BaseException:
            on_batch(-n_done)
            raise

    _fit_batch(batch_size, attempt)
    return records


def _fit_batch(batch_size: int, attempt: Callable[[int], None]) -> None:
    """Call `attempt(batch_size)`; halve the batch size while memory runs out.

    Memory runs out in the middle of a forward pass, when only some layers are recorded. Each
    attempt therefore starts at the first sample. This costs little if the longest samples come
    first.
    """
    while True:
        try:
            attempt(batch_size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise SubjectError(
                    "out of memory with a batch of one sample; lower capture.top_n, or capture "
                    "fewer layers at a time"
                ) from error
        else:
            return
        batch_size //= 2
        _log.warning("out of memory: capture continues with batches of %d", batch_size)
        torch.cuda.empty_cache()


def _empty_records(subject: Subject, recording: RecordSpec) -> dict[int, LayerRecord]:
    return {
        layer: empty_record(
            neurons_per_layer(subject),
            recording.top_n,
            layer_device(subject, layer),
            recording.peak_roles,
            recording.top_activations,
            stored_dtype(layer_device(subject, layer), subject.model.dtype),
        )
        for layer in recording.layers
    }


def _stream(
    subject: Subject,
    samples: Iterable[tuple[int, EncodedSample]],
    records: dict[int, LayerRecord],
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> None:
    batch_on: dict[torch.device, Batch] = {}

    def on_activations(layer: int, activations: torch.Tensor) -> None:
        device = activations.device
        if device not in batch_on:  # The subject's layers are spread over several devices.
            batch_on[device] = replace(batch_on[subject.device], inputs={}).to(device)
        observe(records[layer], activations.detach(), batch_on[device])

    with observing(subject, list(records), hook_point, on_activations), torch.inference_mode():
        for batch in batches(samples, batch_size):
            batch_on.clear()
            batch_on[subject.device] = batch.to(subject.device)
            forward_body(subject, batch_on[subject.device].inputs)
            on_batch(len(batch))
