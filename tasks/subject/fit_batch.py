"""Halve the batch size while memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from neuron_atlas.tasks.models.out_of_memory import is_out_of_memory
from neuron_atlas.tasks.subject.settings import SubjectError

_log = logging.getLogger(__name__)


def fit_batch(
    batch_size: int,
    attempt: Callable[[int, Callable[[int], None]], None],
    on_batch: Callable[[int], None],
    stage: str,
    remedy: str,
) -> None:
    """Call `attempt(batch_size, count)`; halve the batch size while memory runs out.

    Memory runs out in the middle of a forward pass, when only some layers are recorded. Each
    attempt therefore starts at the first sample. This costs little if the longest samples come
    first. count: the attempt calls it with the number of samples of each batch. on_batch: called
    with the same numbers; if an attempt fails, called with its negative total. stage, remedy: for
    messages. Raises SubjectError if memory runs out with a batch of one sample.
    """
    while True:
        done: list[int] = []

        def count(n_samples: int, done: list[int] = done) -> None:
            done.append(n_samples)
            on_batch(n_samples)

        try:
            return attempt(batch_size, count)
        except BaseException as error:
            on_batch(-sum(done))
            if not isinstance(error, RuntimeError) or not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise SubjectError(f"out of memory with a batch of one sample; {remedy}") from error
        batch_size //= 2
        _log.warning("out of memory: %s continues with batches of %d", stage, batch_size)
        torch.cuda.empty_cache()
