"""Read the subject's embeddings of tokens: what enters the first decoder layer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.subject import Subject
from neuron_atlas.tasks.subject.truncate import truncated

WIDTH = 256
"""Numbers of an embedding that are stored. A wider one is projected at random, which changes a
cosine by about 1 / sqrt(WIDTH)."""
_SEED = 20_250_402
_NO_LAYERS = -1


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


def embedding_width(subject: Subject) -> int:
    """Return how many numbers `project` leaves of an embedding."""
    return min(WIDTH, int(subject.model.get_input_embeddings().embedding_dim))


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
