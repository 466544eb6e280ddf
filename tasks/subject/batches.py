"""Batch encoded samples of equal padded length, with the role of every token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from neuron_atlas.tasks.artifacts.histogram import block_of
from neuron_atlas.tasks.subject.batch import batch_inputs
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, EncodedSample

PADDING = -1
"""Role of padding tokens."""

FIRST_TEXT = 2**30
"""Position of a sample's first text token; its visual tokens have the positions from 0."""

PADDING_STEP = 8
"""Sequences are padded to a multiple of this many tokens."""

_MAX_OPEN_LENGTHS = 4
"""How many lengths may have an incomplete batch at a time."""


@dataclass(frozen=True)
class Batch:
    """A right-padded batch.

    inputs: inputs of the subject's body (see tasks/subject/batch.py).
    roles: int8 [batch, tokens], index into ROLES or PADDING. sample_ids, blocks: int64 [batch],
    the samples and their blocks (see tasks/artifacts/histogram.py). ids: the same sample_ids as
    Python integers, read without a device synchronization. positions: int32 [batch, tokens], every
    visual or text token's index among its role's tokens, plus FIRST_TEXT for text tokens; computed
    if it is not given.
    """

    ids: tuple[int, ...]
    inputs: Mapping[str, torch.Tensor]
    roles: torch.Tensor
    sample_ids: torch.Tensor
    blocks: torch.Tensor
    positions: torch.Tensor = None

    def __post_init__(self) -> None:
        if self.positions is None:
            object.__setattr__(self, "positions", _positions(self.roles))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on `device`."""
        if self.roles.device == device:
            return self
        return replace(
            self,
            inputs={name: _move(part, device) for name, part in self.inputs.items()},
            roles=_move(self.roles, device),
            sample_ids=_move(self.sample_ids, device),
            blocks=_move(self.blocks, device),
            positions=_move(self.positions, device),
        )


def batches(samples: Iterable[tuple[int, EncodedSample]], size: int) -> Iterator[Batch]:
    """Yield batches of up to `size` samples of one padded length. Samples should come by length."""
    incomplete: dict[int, list[tuple[int, EncodedSample]]] = {}
    for sample in samples:
        group = incomplete.setdefault(padded_length(sample[1]), [])
        group.append(sample)
        if len(group) == size:
            yield _collated(incomplete.pop(padded_length(sample[1])))
        elif len(incomplete) > _MAX_OPEN_LENGTHS:
            # Samples come by length, so the oldest length has probably ended.
            yield _collated(incomplete.pop(next(iter(incomplete))))
    yield from map(_collated, incomplete.values())


def padded_length(sample: EncodedSample) -> int:
    """Return the padded length of a sample, independent of its batch.

    Attention kernels sum in an order that depends on the sequence length. Because a batch has only
    samples of one padded length, a sample's activations do not depend on the other samples.
    Rankings therefore do not change with the batch size or the shards.
    """
    return -(-len(sample.input_ids) // PADDING_STEP) * PADDING_STEP


def collate(sample_ids: Sequence[int], samples: Sequence[EncodedSample]) -> Batch:
    """Pad samples of one padded length on the right, where a causal model's real tokens do not
    attend to the padding."""
    length = padded_length(samples[0])
    roles = torch.full((len(samples), length), PADDING, dtype=torch.int8)
    for row, sample in enumerate(samples):
        roles[row, : len(sample.roles)] = sample.roles
    ids = torch.tensor(sample_ids, dtype=torch.int64)
    return Batch(
        ids=tuple(sample_ids),
        inputs=batch_inputs(samples, length),
        roles=roles,
        sample_ids=ids,
        blocks=torch.from_numpy(block_of(ids.numpy())),
    )


def _positions(roles: torch.Tensor) -> torch.Tensor:
    visual, text = ((roles == role).cumsum(1, dtype=torch.int32) - 1 for role in (VISUAL, TEXT))
    return torch.where(roles == TEXT, text + FIRST_TEXT, visual)


def _collated(group: Sequence[tuple[int, EncodedSample]]) -> Batch:
    sample_ids, encoded = zip(*group, strict=True)
    return collate(sample_ids, encoded)


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":
        # From pinned memory the copy overlaps what the GPU is still computing.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
