"""Run the subject over samples and record the activations of every neuron in some layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from neuron_atlas.tasks.capture.memory_plan import MemoryPlan, Pass
from neuron_atlas.tasks.capture.observe import observe
from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, Layout, empty_record
from neuron_atlas.tasks.capture.replay import replay
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

    layout: maximum number of visual and text tokens of a sample. random_ids: samples whose traces
    are stored for every neuron. peak_roles: the roles over which a sample's peak is taken.
    """

    layers: Sequence[int]
    hook_point: HookPoint
    top_n: int
    layout: Layout
    random_ids: Sequence[int]
    peak_roles: tuple[int, ...] = EVIDENCE


def capture(
    subject: Subject,
    samples: Samples,
    recording: RecordSpec,
    plan: MemoryPlan,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[int, LayerRecord]]:
    """Stream samples through the subject and yield each layer's record once it is complete.

    Drop each record before requesting the next one: the next pass needs the memory of its traces.
    on_batch: called with the number of samples of each batch of the first pass; if the pass fails,
    called with the negative total. Raises SubjectError if memory runs out with a batch of one
    sample, or if a layer cannot be hooked.
    """
    batch_size = plan.batch_size
    records: dict[int, LayerRecord] = {}

    def rank(size: int) -> None:
        records.clear()
        records.update(_empty_records(subject, recording))
        _allocate_traces(records, plan.passes[0])
        n_done = 0

        def count(n_samples: int) -> None:
            nonlocal n_done
            n_done += n_samples
            on_batch(n_samples)

        try:
            _stream(subject, samples(), records, recording.hook_point, size, observe, count)
        except BaseException:
            on_batch(-n_done)
            raise

    def replay_traces(later: Pass, size: int) -> None:
        replayed = {layer: records[layer] for layer in later.layers}
        _allocate_traces(replayed, later)
        _stream(subject, samples(), replayed, recording.hook_point, size, replay)

    for number, current in enumerate(plan.passes):
        batch_size = _fit_batch(batch_size, partial(replay_traces, current) if number else rank)
        for layer in current.layers:
            yield layer, records.pop(layer)


def _fit_batch(batch_size: int, attempt: Callable[[int], None]) -> int:
    """Call `attempt(batch_size)`; halve the batch size while memory runs out. Return the size used.

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
                    "out of memory with a batch of one sample; lower capture.device_memory_gb to "
                    "hold fewer traces on the subject's device, or capture fewer layers"
                ) from error
        else:
            return batch_size
        batch_size //= 2
        _log.warning("out of memory: capture continues with batches of %d", batch_size)
        torch.cuda.empty_cache()


def _empty_records(subject: Subject, recording: RecordSpec) -> dict[int, LayerRecord]:
    return {
        layer: empty_record(
            neurons_per_layer(subject),
            recording.top_n,
            recording.layout,
            recording.random_ids,
            layer_device(subject, layer),
            recording.peak_roles,
        )
        for layer in recording.layers
    }


def _allocate_traces(records: dict[int, LayerRecord], current: Pass) -> None:
    for layer in current.device:
        records[layer].allocate_traces(records[layer].keys.device)
    for layer in current.host:
        records[layer].allocate_traces(torch.device("cpu"))


def _stream(
    subject: Subject,
    samples: Iterable[tuple[int, EncodedSample]],
    records: dict[int, LayerRecord],
    hook_point: HookPoint,
    batch_size: int,
    update: Callable[[LayerRecord, torch.Tensor, Batch], None],
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    batch_on: dict[torch.device, Batch] = {}

    def on_activations(layer: int, activations: torch.Tensor) -> None:
        device = activations.device
        if device not in batch_on:  # The subject's layers are spread over several devices.
            batch_on[device] = replace(batch_on[subject.device], inputs={}).to(device)
        update(records[layer], activations.detach(), batch_on[device])

    with observing(subject, list(records), hook_point, on_activations), torch.inference_mode():
        for batch in batches(samples, batch_size):
            batch_on.clear()
            batch_on[subject.device] = batch.to(subject.device)
            forward_body(subject, batch_on[subject.device].inputs)
            on_batch(len(batch))
