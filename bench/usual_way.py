"""The usual way to find exemplars and their traces, for comparison.

One sample at a time, every activation copied to the host, a heap for every neuron there, and a
second pass over the samples for the traces of the winners.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bench.subjects import Samples
from neuron_atlas.tasks.capture.batch import batches
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.encode import TEMPLATE
from neuron_atlas.tasks.subject.hook_points import decoder_layers, observing
from neuron_atlas.tasks.subject.load import Subject


def usual_way(
    subject: Subject, samples: Samples, top_n: int
) -> dict[tuple[int, int, int], np.ndarray]:
    """Traces by (layer, neuron, sample_id) of every neuron's `top_n` strongest samples."""
    layers = range(len(decoder_layers(subject)))
    heaps: dict[int, list[list[tuple[float, int]]]] = {}
    for sample_id, activations in _one_by_one(subject, samples, layers):
        for layer, values in activations.items():
            mine = heaps.setdefault(layer, [[] for _ in range(values.shape[1])])
            for neuron, peak in enumerate(values.max(0).tolist()):
                if len(mine[neuron]) < top_n:
                    heapq.heappush(mine[neuron], (peak, -sample_id))
                else:
                    heapq.heappushpop(mine[neuron], (peak, -sample_id))
    wanted: dict[int, list[tuple[int, int]]] = {}
    for layer, mine in heaps.items():
        for neuron, heap in enumerate(mine):
            for _, negative_id in heap:
                wanted.setdefault(-negative_id, []).append((layer, neuron))
    traces: dict[tuple[int, int, int], np.ndarray] = {}
    for sample_id, activations in _one_by_one(subject, samples, layers):
        for layer, neuron in wanted.get(sample_id, []):
            traces[layer, neuron, sample_id] = activations[layer][:, neuron].astype(np.float16)
    return traces


def _one_by_one(
    subject: Subject, samples: Samples, layers: Sequence[int]
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    found: dict[int, torch.Tensor] = {}
    with observing(subject, layers, "gate", found.__setitem__), torch.inference_mode():
        for sample_id, encoded in samples:
            (batch,) = batches([(sample_id, encoded)], 1)
            forward_body(subject, batch.inputs)
            keep = (encoded.roles != TEMPLATE).numpy()
            yield (
                sample_id,
                {
                    layer: values[0].float().cpu().numpy()[: len(keep)][keep]
                    for layer, values in found.items()
                },
            )
