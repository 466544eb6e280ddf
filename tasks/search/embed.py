"""Read the subject's embeddings of tokens: what enters the first decoder layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.search.peaks import role_of, sample_of, token_of
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch, batches, collate
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.subject import Subject
from neuron_atlas.tasks.subject.truncate import truncated

WIDTH = 256
"""Numbers of an embedding that are stored. A wider one is projected at random, which changes a
cosine by about 1 / sqrt(WIDTH)."""
_SEED = 20_250_402
_NO_LAYERS = -1
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
    embeddings = np.zeros((len(places), min(WIDTH, _hidden_size(subject))), np.float32)

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


def embed_batch(subject: Subject, batch: Batch) -> torch.Tensor:
    """Return what enters the first decoder layer: [samples, tokens, hidden size]."""
    caught: list[torch.Tensor] = []

    def catch(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        caught.append(kwargs["inputs_embeds"])

    decoder = subject.decoder
    handle = decoder.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        with truncated(subject, _NO_LAYERS), torch.inference_mode():
            forward_body(subject, batch.inputs)
    finally:
        handle.remove()
    (inputs,) = caught
    return inputs


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


def project(embeddings: torch.Tensor) -> np.ndarray:
    """Return embeddings [tokens, hidden size] with at most WIDTH numbers each, float32."""
    embeddings = embeddings.float()
    if embeddings.shape[1] > WIDTH:
        matrix = torch.from_numpy(_projection(embeddings.shape[1])).to(embeddings.device)
        embeddings = embeddings @ matrix
    return embeddings.cpu().numpy()


@lru_cache(maxsize=2)
def _projection(hidden_size: int) -> np.ndarray:
    """Return a random matrix float32 [hidden_size, WIDTH] that keeps lengths on average."""
    drawn = np.random.default_rng(_SEED).standard_normal((hidden_size, WIDTH))
    return (drawn / np.sqrt(WIDTH)).astype(np.float32)


def _hidden_size(subject: Subject) -> int:
    return int(subject.model.get_input_embeddings().embedding_dim)


def _positions(roles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the position in the sequence of each place of one sample."""
    positions = np.zeros(len(places), np.int64)
    for role in (VISUAL, TEXT):
        chosen = role_of(places) == role
        positions[chosen] = np.flatnonzero(roles == role)[token_of(places[chosen])]
    return positions
