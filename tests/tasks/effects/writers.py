"""Plant neurons whose effect is known: what they write, and at which tokens they fire."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch

from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.hook_points import decoder_layers
from neuron_atlas.tasks.subject.load import Subject

FIRES, SILENT = 4.0, -6.0


def copied(subject: Subject) -> Subject:
    """A subject whose weights may be changed."""
    return replace(subject, model=deepcopy(subject.model))


def plant(
    subject: Subject,
    layer: int,
    neuron: int,
    samples: list[EncodedSample],
    role: int | None,
    write: torch.Tensor,
) -> None:
    """Make a neuron fire at the tokens of a role (None for all text and visual tokens), and write a
    vector [width] into the residual stream where it fires."""
    mlp = decoder_layers(subject)[layer].mlp
    seen: list[torch.Tensor] = []
    handle = mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    with torch.inference_mode():
        for encoded in samples:
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    handle.remove()
    inputs = torch.cat(seen).double()
    roles = torch.cat([encoded.roles for encoded in samples])
    fires = (roles == role) if role is not None else roles < 2
    with torch.no_grad():
        mlp.gate_proj.weight[neuron] = fit(inputs, torch.where(fires, FIRES, SILENT))
        mlp.up_proj.weight[neuron] = fit(inputs, torch.ones(len(inputs)))
        mlp.down_proj.weight[:, neuron] = write


def reserve(subject: Subject, word: str) -> torch.Tensor:
    """Change the unembedding so that one direction of the residual stream speaks for one word.

    Returns that direction, float32 [width]; it is one that the subject hardly uses.
    """
    (token, *_) = subject.processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    weight = subject.model.get_output_embeddings().weight
    norm = subject.model.model.get_decoder().norm.weight
    with torch.no_grad():
        rows = (weight * norm).double()
        direction = torch.linalg.svd(rows, full_matrices=False)[2][-1]
        rows -= (rows @ direction)[:, None] * direction
        rows[token] += 16 * direction
        weight.copy_(rows / norm)
    return direction.float()


def fit(inputs: torch.Tensor, aim: torch.Tensor) -> torch.Tensor:
    """The row float32 [width] whose products with inputs [tokens, width] come closest to aim."""
    products = inputs.T @ inputs
    ridge = 1e-4 * products.trace() / len(products)
    solved = torch.linalg.solve(
        products + ridge * torch.eye(len(products)), inputs.T @ aim.double()
    )
    return solved.float()
