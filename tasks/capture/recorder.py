"""What is kept of one layer while samples stream by: top N, traces and moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tasks.artifacts import NO_SAMPLE
from tasks.capture.moments import Moments
from tasks.capture.top_n import EMPTY, insert, pack
from tasks.subject.batch import batch_inputs
from tasks.subject.encode import TEMPLATE, TEXT, VISUAL, Encoded


@dataclass(frozen=True)
class Layout:
    """Room for one trace: at most `visual` visual tokens, then at most `text` text tokens."""

    visual: int
    text: int

    @property
    def tokens(self) -> int:
        """Visual and text tokens together."""
        return self.visual + self.text


@dataclass(frozen=True)
class Batch:
    """A right-padded batch, and where each role's tokens stand in it.

    inputs: what the model's body takes (see tasks/subject/batch.py), on the device.
    sample_ids: int64 [batch]. membership: float32 [roles, batch * tokens], 1 where a token has
    the role. places: for each role int64 [batch, most tokens of the role]; a row with fewer
    tokens repeats its first, which changes no maximum. lengths: for each role int64 [batch].
    """

    inputs: Mapping[str, torch.Tensor]
    sample_ids: torch.Tensor
    membership: torch.Tensor
    places: tuple[torch.Tensor, ...]
    lengths: tuple[torch.Tensor, ...]


_FLOAT16_MAX = torch.finfo(torch.float16).max

PADDING_STEP = 8
"""Sequences are padded to a multiple of this many tokens."""


def padded_length(sample: Encoded) -> int:
    """The length that a sample is padded to, whatever it is batched with.

    Attention kernels sum in an order that depends on the sequence length. Batching only samples
    of one padded length makes a sample's activations its own, so rankings do not change with the
    batch size or with how the dataset is cut into shards.
    """
    return -(-len(sample.input_ids) // PADDING_STEP) * PADDING_STEP


def collate(sample_ids: Sequence[int], samples: Sequence[Encoded], device: torch.device) -> Batch:
    """Pad samples of one padded length on the right, where a causal model's real tokens cannot
    see the padding."""
    length = padded_length(samples[0])
    roles = torch.full((len(samples), length), -1, dtype=torch.int8)
    for row, sample in enumerate(samples):
        roles[row, : len(sample.roles)] = sample.roles
    of_role = [roles == role for role in (VISUAL, TEXT, TEMPLATE)]
    return Batch(
        inputs={name: part.to(device) for name, part in batch_inputs(samples, length).items()},
        sample_ids=torch.tensor(sample_ids, dtype=torch.int64, device=device),
        membership=torch.stack([mask.flatten() for mask in of_role]).float().to(device),
        places=tuple(_places(mask).to(device) for mask in of_role),
        lengths=tuple(mask.sum(1).to(device) for mask in of_role),
    )


class LayerRecorder:
    """The running record of one layer; every tensor lives on the subject's device.

    keys: int64 [neurons, N], packed peaks and sample_ids (see top_n).
    peak_places: int32 [neurons, N], index of the peak within the trace's layout.
    traces: float16 [neurons, N, layout.tokens]. random_traces: float16 [neurons, random samples,
    layout.tokens], for the samples in `random_ids`.
    """

    def __init__(
        self,
        neurons: int,
        top_n: int,
        layout: Layout,
        random_ids: Sequence[int],
        device: torch.device,
    ) -> None:
        self.layout = layout
        self.keys = torch.full((neurons, top_n), EMPTY, dtype=torch.int64, device=device)
        self.peak_places = torch.full((neurons, top_n), NO_SAMPLE, dtype=torch.int32, device=device)
        self.traces = torch.zeros(neurons, top_n, layout.tokens, dtype=torch.float16, device=device)
        self.random_traces = torch.zeros(
            neurons, len(random_ids), layout.tokens, dtype=torch.float16, device=device
        )
        self.random_slots = {sample_id: slot for slot, sample_id in enumerate(random_ids)}
        self.moments = Moments(neurons, device)

    def observe(self, activations: torch.Tensor, batch: Batch) -> None:
        """Take in the activations [batch, tokens, neurons] of one forward pass."""
        self.moments.add(activations.flatten(0, 1), batch.membership)
        by_role = [_of_role(activations, batch, role) for role in (VISUAL, TEXT, TEMPLATE)]
        peaks = [_peaks(values, batch.lengths[role]) for role, values in enumerate(by_role)]
        for role, peak in enumerate(peaks):
            self.moments.raise_maximum(role, peak)
        evidence_peaks = torch.maximum(peaks[VISUAL], peaks[TEXT])
        candidates = pack(evidence_peaks, batch.sample_ids[:, None]).T.contiguous()
        entered = insert(self.keys, candidates)
        if entered.neuron.numel():
            trace = torch.cat(
                [by_role[role][entered.sample, :, entered.neuron] for role in (VISUAL, TEXT)], 1
            )
            self._store(self.traces, entered.neuron, entered.slot, trace, batch)
            self.peak_places[entered.neuron, entered.slot] = self._peak_places(trace, batch)
        self._keep_random(by_role, batch)

    def _store(
        self,
        buffer: torch.Tensor,
        neuron: torch.Tensor | slice,
        slot: torch.Tensor | int,
        trace: torch.Tensor,
        batch: Batch,
    ) -> None:
        """Write traces [entries, batch's visual + text tokens] into the layout's columns."""
        n_visual = batch.places[VISUAL].shape[1]
        n_text = batch.places[TEXT].shape[1]
        # An activation beyond float16 is kept as its largest number, where infinity would spoil
        # every sum that it enters.
        trace = trace.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half()
        buffer[neuron, slot, :n_visual] = trace[:, :n_visual]
        text = slice(self.layout.visual, self.layout.visual + n_text)
        buffer[neuron, slot, text] = trace[:, n_visual:]

    def _peak_places(self, trace: torch.Tensor, batch: Batch) -> torch.Tensor:
        # A repeated token stands after the one it repeats, so the first maximum is a real place.
        place = trace.float().argmax(1)
        n_visual = batch.places[VISUAL].shape[1]
        shift = self.layout.visual - n_visual
        return torch.where(place < n_visual, place, place + shift).int()

    def _keep_random(self, by_role: Sequence[torch.Tensor], batch: Batch) -> None:
        for row, sample_id in enumerate(batch.sample_ids.tolist()):
            slot = self.random_slots.get(sample_id)
            if slot is not None:
                trace = torch.cat([by_role[VISUAL][row], by_role[TEXT][row]]).T
                self._store(self.random_traces, slice(None), slot, trace, batch)


def _places(mask: torch.Tensor) -> torch.Tensor:
    """Positions int64 [batch, most] of a role's tokens, from its mask [batch, tokens]."""
    lengths = mask.sum(1)
    most = int(lengths.max())
    # A stable sort of the inverted mask lists the role's positions first, in order.
    order = (~mask).to(torch.int8).sort(dim=1, stable=True).indices[:, :most]
    beyond = torch.arange(most) >= lengths[:, None]
    return torch.where(beyond, order[:, :1], order)


def _of_role(activations: torch.Tensor, batch: Batch, role: int) -> torch.Tensor:
    """The activations [batch, most tokens of the role, neurons] of one role."""
    rows = torch.arange(len(activations), device=activations.device)[:, None]
    return activations[rows, batch.places[role]]


def _peaks(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Highest activation float32 [batch, neurons]; -inf for a sample without the role."""
    if values.shape[1] == 0:
        return values.new_full((values.shape[0], values.shape[2]), -torch.inf).float()
    return values.float().amax(1).masked_fill((lengths == 0)[:, None], -torch.inf)
