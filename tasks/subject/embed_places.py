"""Read the subject's embeddings at places in the texts and images of samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuron_atlas.tasks.artifacts.places import role_of, sample_of, token_of
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.embeddings import embed_batch, embedding_width, project
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.subject import Subject


def embed_places(
    subject: Subject,
    places: np.ndarray,
    catalog: Catalog,
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
    stage: str = "search",
) -> np.ndarray:
    """Return the embeddings at some places (see `place_of`), ascending: float32 [places, width].

    Runs the vision tower and the projector, and no decoder layer. Raises SubjectError and
    SampleError. stage: for messages.
    """
    samples = sample_of(places)
    embeddings = np.zeros((len(places), embedding_width(subject)), np.float32)

    def attempt(size: int, count: Callable[[int], None]) -> None:
        wanted = np.unique(samples).tolist()
        encoded = encoded_samples(subject, wanted, catalog, threads, 2 * size)
        for batch in batches(encoded, size):
            inputs = embed_batch(subject, batch)
            for row, sample_id in enumerate(batch.ids):
                start, stop = np.searchsorted(samples, [sample_id, sample_id + 1])
                mine = places[start:stop]
                position = _positions(batch.roles[row].numpy(), mine)
                embeddings[start:stop] = project(inputs[row, position])
            count(len(batch))

    fit_batch(batch_size, attempt, on_batch, stage, "use a device with more memory")
    return embeddings


def _positions(roles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the position in the sequence of each place of one sample."""
    positions = np.zeros(len(places), np.int64)
    for role in (VISUAL, TEXT):
        chosen = role_of(places) == role
        positions[chosen] = np.flatnonzero(roles == role)[token_of(places[chosen])]
    return positions
