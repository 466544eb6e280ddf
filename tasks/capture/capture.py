"""One forward pass over samples: what excites every neuron of the layers asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from neuron_atlas.tasks.capture.batch import Batch, batches
from neuron_atlas.tasks.capture.memory_plan import MemoryPlan, Pass
from neuron_atlas.tasks.capture.observe import observe
from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, Layout, empty_record
from neuron_atlas.tasks.capture.replay import replay
from neuron_atlas.tasks.models.out_of_memory import is_out_of_memory
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.encode import Encoded
from neuron_atlas.tasks.subject.hook_points import layer_device, neurons_per_layer, observing
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError

Samples = Callable[[], Iterable[tuple[int, Encoded]]]
"""Gives (sample_id, encoded sample) pairs, from the first on at every call."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """What is recorded of each layer.

    layout: the most visual and text tokens of any sample. random_ids: the samples whose traces
    are kept whatever they excite. peak_roles: the roles over which a sample's peak is taken.
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
    recording: Recording,
    plan: MemoryPlan,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[int, LayerRecord]]:
    """Stream samples through the subject and yield each layer's record once it is whole.

    A record that has been yielded is the caller's: the room of its traces is needed for the
    layers of the next pass. on_batch: told how many samples each batch of the first pass had.
    """
    batch_size = plan.batch_size
    records: dict[int, LayerRecord] = {}

    def rank(size: int) -> None:
        records.clear()
        records.update(_empty_records(subject, recording))
        _make_room(records, plan.passes[0])
        done = 0

        def count(samples: int) -> None:
            nonlocal done
            done += samples
            on_batch(samples)

        try:
            _stream(subject, samples(), records, recording.hook_point, size, observe, count)
        except BaseException:
            on_batch(-done)
            raise

    def look_again(kept: Pass, size: int) -> None:
        again = {layer: records[layer] for layer in kept.layers}
        _make_room(again, kept)
        _stream(subject, samples(), again, recording.hook_point, size, replay)

    for number, kept in enumerate(plan.passes):
        batch_size = _halving(batch_size, partial(look_again, kept) if number else rank)
        for layer in kept.layers:
            yield layer, records.pop(layer)


def _halving(batch_size: int, attempt: Callable[[int], None]) -> int:
    """Call `attempt(batch_size)`, with half of it again where memory runs out; what fitted.

    Memory runs out in the middle of a forward pass, with some layers recorded and others not, so
    an attempt begins from the first sample. That costs little where the longest come first.
    """
    while True:
        try:
            attempt(batch_size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise SubjectError(
                    "out of memory with a batch of one sample; lower capture.device_memory_gb, "
                    "so that fewer traces lie beside the subject, or capture fewer layers"
                ) from error
        else:
            return batch_size
        batch_size //= 2
        _log.warning("out of memory: capture goes on with batches of %d", batch_size)
        torch.cuda.empty_cache()


def _empty_records(subject: Subject, recording: Recording) -> dict[int, LayerRecord]:
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


def _make_room(records: dict[int, LayerRecord], kept: Pass) -> None:
    for layer in kept.device:
        records[layer].make_room_for_traces(records[layer].keys.device)
    for layer in kept.host:
        records[layer].make_room_for_traces(torch.device("cpu"))


def _stream(
    subject: Subject,
    samples: Iterable[tuple[int, Encoded]],
    records: dict[int, LayerRecord],
    hook_point: HookPoint,
    batch_size: int,
    take_in: Callable[[LayerRecord, torch.Tensor, Batch], None],
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    on: dict[torch.device, Batch] = {}

    def hooked(layer: int, activations: torch.Tensor) -> None:
        device = activations.device
        if device not in on:  # Layers of a subject that is spread over devices.
            on[device] = replace(on[subject.device], inputs={}).to(device)
        take_in(records[layer], activations.detach(), on[device])

    with observing(subject, list(records), hook_point, hooked), torch.inference_mode():
        for batch in batches(samples, batch_size):
            on.clear()
            on[subject.device] = batch.to(subject.device)
            forward_body(subject, on[subject.device].inputs)
            on_batch(len(batch))
