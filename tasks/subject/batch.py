"""Batch encoded samples and run the model's body on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.subject import Subject

PER_TOKEN = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")
"""Inputs with one value per token that marks image tokens. Gemma 3's image tokens attend to each
other in both directions; Qwen's have 2-D positions. Padding, and samples without these inputs,
count as text."""


class EndOfPassError(Exception):
    """Raised by a hook to end a forward pass: what it is run for was read."""


def batch_inputs(samples: Sequence[EncodedSample], length: int) -> dict[str, torch.Tensor]:
    """Return the inputs of `forward_body`: samples padded on the right to `length` tokens.

    Per-token inputs are padded and stacked: [samples, length]. All other inputs have one row per
    image, tile or patch of the batch, in the order of the samples: models assign image features to
    placeholders in this order. Their other dimensions are padded at the end to the largest size,
    as families with tiles expect.
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
                    marks = sample.inputs[name][0]
                    inputs[name][row, : len(marks)] = marks
                    # The last token of a sample is text.
                    inputs[name][row, len(marks) :] = marks[-1]
        else:
            inputs[name] = _stack_rows(
                [sample.inputs[name] for sample in samples if name in sample.inputs]
            )
    return inputs


def forward_body(subject: Subject, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Run the model without its language-model head. Returns [samples, length, width], the output
    of the final norm.

    Needs no attention mask: padding is on the right, and a causal model's tokens attend to the
    left.
    """
    on_device = {
        name: (part.to(subject.model.dtype) if part.is_floating_point() else part).to(
            subject.device
        )
        for name, part in inputs.items()
    }
    if subject.body is not subject.model:
        return subject.body(**on_device, use_cache=False).last_hidden_state
    hidden: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: Any) -> None:
        hidden.append(output[0])
        raise EndOfPassError

    handle = subject.decoder.register_forward_hook(keep)
    try:
        subject.body(**on_device, use_cache=False)
    except EndOfPassError:
        if not hidden:  # Another hook ended the pass.
            raise
    finally:
        handle.remove()
    return hidden[0]


def _stack_rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate along the first dimension; pad the other dimensions to the largest size."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    rows = parts[0].new_zeros(sum(len(part) for part in parts), *shape)
    start = 0
    for part in parts:
        rows[(slice(start, start + len(part)), *(slice(size) for size in part.shape[1:]))] = part
        start += len(part)
    return rows
