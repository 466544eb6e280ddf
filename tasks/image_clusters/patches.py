"""Read the subject's embeddings of visual tokens, as vectors of length 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.embeddings import embed_batch, project
from neuron_atlas.tasks.subject.encode import VISUAL
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.subject import Subject

_SMALLEST = 1e-12


def read_patches(
    subject: Subject,
    sample_ids: Sequence[int],
    catalog: Catalog,
    take: Callable[[int, np.ndarray], None],
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    """Call `take(sample_id, vectors)` for each sample: float32 [visual tokens, width], of length 1.

    Samples come in any order, and again if memory ran out. Runs the vision tower and the projector,
    and no decoder layer. Raises SubjectError and SampleError.
    """

    def attempt(size: int, count: Callable[[int], None]) -> None:
        encoded = encoded_samples(subject, sample_ids, catalog, threads, 2 * size)
        for batch in batches(encoded, size):
            inputs = embed_batch(subject, batch)
            for row, sample_id in enumerate(batch.ids):
                take(sample_id, _unit(project(inputs[row, batch.roles[row] == VISUAL])))
            count(len(batch))

    fit_batch(batch_size, attempt, on_batch, "image_clusters", "use a device with more memory")


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, _SMALLEST)).astype(np.float32)
