"""Read the subject's embeddings of an image and of words."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.subject.batches import collate
from neuron_atlas.tasks.subject.embeddings import embed_batch, project
from neuron_atlas.tasks.subject.encode import VISUAL, encode
from neuron_atlas.tasks.subject.subject import Subject

_ANY_TEXT = "."
"""Visual embeddings do not depend on the text."""


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
