"""Find exemplars and their traces in the usual way, as a baseline.

Processes one sample at a time, copies every activation to the host, keeps a heap per neuron, and
makes a second pass over the samples for the traces of the exemplars.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bench.subjects import Samples
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.encode import TEMPLATE
from neuron_atlas.tasks.subject.hook_points import decoder_layers, observing
from neuron_atlas.tasks.subject.load import Subject


def capture_baseline(
    subject: Subject, samples: Samples, top_n: int
) -> dict[tuple[int, int, int], np.ndarray]:
    """Return the traces of every neuron's `top_n` strongest samples, by (layer, neuron,
    sample_id)."""
    layers = range(len(decoder_layers(subject)))
    heaps: dict[int, list[list[tuple[float, int]]]] = {}
    for sample_id, activations in _one_by_one(subject, samples, layers):
        for layer, values in activations.items():
            layer_heaps = heaps.setdefault(layer, [[] for _ in range(values.shape[1])])
            for neuron, peak in enumerate(values.max(0).tolist()):
                if len(layer_heaps[neuron]) < top_n:
                    heapq.heappush(layer_heaps[neuron], (peak, -sample_id))
                else:
                    heapq.heappushpop(layer_heaps[neuron], (peak, -sample_id))
    neurons_of: dict[int, list[tuple[int, int]]] = {}
    for layer, layer_heaps in heaps.items():
        for neuron, heap in enumerate(layer_heaps):
            for _, negative_id in heap:
                neurons_of.setdefault(-negative_id, []).append((layer, neuron))
    traces: dict[tuple[int, int, int], np.ndarray] = {}
    for sample_id, activations in _one_by_one(subject, samples, layers):
        for layer, neuron in neurons_of.get(sample_id, []):
            traces[layer, neuron, sample_id] = activations[layer][:, neuron].astype(np.float16)
    return traces


def _one_by_one(
    subject: Subject, samples: Samples, layers: Sequence[int]
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    activations: dict[int, torch.Tensor] = {}
    with observing(subject, layers, "gate", activations.__setitem__), torch.inference_mode():
        for sample_id, encoded in samples:
            (batch,) = batches([(sample_id, encoded)], 1)
            forward_body(subject, batch.inputs)
            is_evidence = (encoded.roles != TEMPLATE).numpy()
            yield (
                sample_id,
                {
                    layer: values[0].float().cpu().numpy()[: len(is_evidence)][is_evidence]
                    for layer, values in activations.items()
                },
            )
