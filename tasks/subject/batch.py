"""Several samples in one forward pass of the model's body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from neuron_atlas.tasks.subject.encode import Encoded
from neuron_atlas.tasks.subject.load import Subject

PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
"""Inputs that say of each token whether it is of an image: Gemma 3's image tokens see one another
both ways, Qwen's have positions in the plane. Padding is text, and so are samples without them."""


def batch_inputs(samples: Sequence[Encoded], length: int) -> dict[str, torch.Tensor]:
    """The inputs of samples padded on the right to `length` tokens: what `forward_body` takes.

    What has a value for each token is padded and stacked. All else has a row for each image (or
    tile, or patch) of the batch: rows follow one another in the order of the samples, which is the
    order in which a model hands image features to the tokens that stand for them; further
    dimensions are padded at their end to the largest, as families with tiles expect it.
    """
    ids = torch.zeros(len(samples), length, dtype=torch.int64)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.input_ids)] = sample.input_ids
    inputs = {"input_ids": ids}
    for name in dict.fromkeys(name for sample in samples for name in sample.inputs):
        if name in PER_TOKEN:
            inputs[name] = torch.zeros(len(samples), length, dtype=torch.int64)
            for row, sample in enumerate(samples):
                if name in sample.inputs:
                    inputs[name][row, : len(sample.input_ids)] = sample.inputs[name][0]
        else:
            inputs[name] = _stack_rows(
                [sample.inputs[name] for sample in samples if name in sample.inputs]
            )
    return inputs


def forward_body(subject: Subject, inputs: Mapping[str, torch.Tensor]) -> None:
    """Run the model without its language-model head, for what hooks see of it.

    There is no attention mask because the padding is on the right, where a causal model's real
    tokens never look.
    """
    given = {
        name: (part.to(subject.model.dtype) if part.is_floating_point() else part).to(
            subject.device
        )
        for name, part in inputs.items()
    }
    subject.model.model(**given, use_cache=False)


def _stack_rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts one after the other along the first dimension, each other padded to the largest."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    rows = parts[0].new_zeros(sum(len(part) for part in parts), *shape)
    start = 0
    for part in parts:
        rows[(slice(start, start + len(part)), *(slice(size) for size in part.shape[1:]))] = part
        start += len(part)
    return rows
