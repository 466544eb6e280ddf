"""One forward pass over samples: what excites every neuron of the layers asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from tasks.capture.recorder import Batch, LayerRecorder, Layout, collate, padded_length
from tasks.subject.batch import forward_body
from tasks.subject.encode import Encoded
from tasks.subject.hook_points import neurons_per_layer, observing
from tasks.subject.load import Subject
from tasks.subject.settings import HookPoint


def capture(
    subject: Subject,
    samples: Iterable[tuple[int, Encoded]],
    *,
    layers: Sequence[int],
    hook_point: HookPoint,
    top_n: int,
    layout: Layout,
    random_ids: Sequence[int],
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> dict[int, LayerRecorder]:
    """Stream (sample_id, encoded sample) pairs through the subject and record every layer.

    layout: the most visual and text tokens of any sample. random_ids: the samples whose traces
    are kept whatever they excite. on_batch: told how many samples each batch had.
    """
    recorders = {
        layer: LayerRecorder(neurons_per_layer(subject), top_n, layout, random_ids, subject.device)
        for layer in layers
    }
    current: list[Batch] = []

    def observe(layer: int, activations: torch.Tensor) -> None:
        recorders[layer].observe(activations.detach(), current[0])

    with observing(subject, layers, hook_point, observe), torch.inference_mode():
        for batch in batches(samples, batch_size, subject.device):
            current[:] = [batch]
            forward(subject, batch)
            on_batch(len(batch.sample_ids))
    return recorders


def batches(
    samples: Iterable[tuple[int, Encoded]], size: int, device: torch.device
) -> Iterator[Batch]:
    """Batches of up to `size` samples, each of one padded length."""
    waiting: dict[int, list[tuple[int, Encoded]]] = {}

    def collated(group: list[tuple[int, Encoded]]) -> Batch:
        sample_ids, encoded = zip(*group, strict=True)
        return collate(sample_ids, encoded, device)

    for sample in samples:
        length = padded_length(sample[1])
        group = waiting.setdefault(length, [])
        group.append(sample)
        if len(group) == size:
            yield collated(waiting.pop(length))
    yield from map(collated, waiting.values())


def forward(subject: Subject, batch: Batch) -> None:
    """One forward pass, for what the hooks see of it.

    It is of the body without the language-model head, for nothing here needs logits.
    """
    forward_body(subject, batch.inputs)
