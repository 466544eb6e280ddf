"""Read the subject's embeddings at the peaks of neurons, of an image and of words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.search.peaks import role_of, sample_of, token_of
from neuron_atlas.tasks.subject.batches import batches, collate
from neuron_atlas.tasks.subject.embeddings import embed_batch, embedding_width, project
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.subject import Subject

_ANY_TEXT = "."
"""Visual embeddings do not depend on the text."""


def embed_places(
    subject: Subject,
    places: np.ndarray,
    catalog: Catalog,
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Return the embeddings at some places (see `place_of`), ascending: float32 [places, width].

    Runs the vision tower and the projector, and no decoder layer. Raises SubjectError and
    SampleError.
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

    fit_batch(batch_size, attempt, on_batch, "search", "use a device with more memory")
    return embeddings


def embed_image(subject: Subject, image: Image.Image) -> np.ndarray:
    """Return the embeddings of an image's visual tokens: float32 [tokens, width]."""
    batch = collate([0], [encode(subject, [image], _ANY_TEXT)])
    inputs = embed_batch(subject, batch)
    return project(inputs[0, batch.roles[0] == VISUAL])


def embed_words(subject: Subject, words: str) -> np.ndarray:
    """Return the embeddings of the tokens of words, as inside a text: float32 [tokens, width]."""
    tokenizer = subject.processor.tokenizer
    ids = tokenizer(f" {words.strip()}", add_special_tokens=False)["input_ids"]
    ids = [one for one in ids if tokenizer.decode([one]).strip()]
    table = subject.model.get_input_embeddings()
    with torch.inference_mode():
        return project(table(torch.tensor(ids, dtype=torch.int64, device=subject.device)))


def _positions(roles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the position in the sequence of each place of one sample."""
    positions = np.zeros(len(places), np.int64)
    for role in (VISUAL, TEXT):
        chosen = role_of(places) == role
        positions[chosen] = np.flatnonzero(roles == role)[token_of(places[chosen])]
    return positions
