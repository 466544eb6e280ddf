"""One forward pass over samples: what excites every neuron of the layers asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tasks.capture.recorder import Batch, LayerRecorder, Layout, collate, padded_length
from tasks.subject.encode import Encoded
from tasks.subject.hook_points import HookPoint, neurons_per_layer, observing
from tasks.subject.load import Subject


@dataclass(frozen=True)
class CaptureSettings:
    """What is recorded.

    layers: decoder layers, or None for all. hook_point: gate, or gate_up. top_n: exemplars a
    neuron. random_samples: samples drawn by `seed` whose traces are kept for every neuron.
    """

    layers: tuple[int, ...] | None = None
    hook_point: HookPoint = "gate"
    top_n: int = 50
    random_samples: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError("layers: name at least one layer, each 0 or above")
        if self.top_n < 1:
            raise ValueError("top_n: must be at least 1")
        if self.random_samples < 0:
            raise ValueError("random_samples: must be 0 or more")


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
        layer: LayerRecorder(
            neurons_per_layer(subject), top_n, layout, random_ids, subject.device
        )
        for layer in layers
    }
    current: list[Batch] = []

    def observe(layer: int, activations: torch.Tensor) -> None:
        recorders[layer].observe(activations.detach(), current[0])

    with observing(subject, layers, hook_point, observe), torch.inference_mode():
        for group in _groups(samples, batch_size):
            sample_ids, encoded = zip(*group, strict=True)
            current[:] = [collate(sample_ids, encoded, subject.device)]
            _forward(subject, current[0])
            on_batch(len(group))
    return recorders


def _forward(subject: Subject, batch: Batch) -> None:
    # The body without the language-model head: nothing here needs logits. There is no attention
    # mask because the padding is on the right, where causal attention never looks.
    subject.model.model(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values.to(subject.model.dtype),
        use_cache=False,
    )


def _groups(
    samples: Iterable[tuple[int, Encoded]], size: int
) -> Iterator[list[tuple[int, Encoded]]]:
    """Groups of up to `size` samples of one padded length."""
    waiting: dict[int, list[tuple[int, Encoded]]] = {}
    for sample in samples:
        length = padded_length(sample[1])
        group = waiting.setdefault(length, [])
        group.append(sample)
        if len(group) == size:
            yield waiting.pop(length)
    yield from waiting.values()
