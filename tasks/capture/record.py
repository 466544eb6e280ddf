"""Running record of one layer: top N, moments and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from neuron_atlas.tasks.artifacts import NO_SAMPLE, ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.top_n import EMPTY, unpack
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

EVIDENCE = (VISUAL, TEXT)
"""Roles whose tokens are evidence."""


@dataclass
class TokenStatistics:
    """Running sums over all tokens of each role, on the layer's device.

    tokens: int64 [roles, 1], number of tokens; [roles, neurons] for a layer with experts.
    nonfinite, positive: int64 [roles, neurons], number of activations that are infinite or NaN, and
    above 0. total, squares: float64 [roles, neurons], sums over finite activations. maximum:
    float32 [roles, neurons], highest finite activation.
    histogram: int32 [visual and text, BLOCKS * BINS, neurons], see tasks/artifacts/histogram.py.

    Sums within a sample are float32 and sums over samples float64, so the error of a mean is about
    a millionth of the largest activations.
    """

    tokens: torch.Tensor
    nonfinite: torch.Tensor
    positive: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor
    maximum: torch.Tensor
    histogram: torch.Tensor

    def mean_and_m2(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means and sums of squared deviations from them, float64 [roles, neurons]."""
        n = (self.tokens - self.nonfinite).clamp(min=1).double()
        mean = self.total / n
        return mean, (self.squares - n * mean.square()).clamp(min=0)


@dataclass
class SlotSummaries:
    """Summaries of the samples in a record's slots, on the layer's device.

    top: [visual and text, neurons, N, K], the K highest finite activations of each role,
    descending, then -inf. text_peak_token: int32 [neurons, N], index of the text peak among the
    text tokens; -1 without a finite text activation. active: int32 [visual and text, neurons, N],
    tokens above 0. visual_sum, visual_sum_sq: float32 [neurons, N], sums of the positive visual
    activations and of their squares, added up in float64.
    """

    top: torch.Tensor
    text_peak_token: torch.Tensor
    active: torch.Tensor
    visual_sum: torch.Tensor
    visual_sum_sq: torch.Tensor


@dataclass
class LayerRecord:
    """Running record of one layer, on the layer's device.

    keys: int64 [neurons, N], packed peaks and sample_ids (see top_n). peak_positions: int32
    [neurons, N], index of the peak among its role's tokens, plus FIRST_TEXT for a text token.
    peak_roles: the roles over which a sample's peak is taken. slots: what is stored of the sample
    in each slot.
    """

    peak_roles: tuple[int, ...]
    keys: torch.Tensor
    peak_positions: torch.Tensor
    slots: SlotSummaries
    statistics: TokenStatistics

    @property
    def neurons(self) -> int:
        """Number of neurons of the layer."""
        return len(self.keys)

    def slot_samples(self) -> torch.Tensor:
        """Return the sample_id of every slot: int64 [neurons, N], NO_SAMPLE if empty."""
        return unpack(self.keys)[1]


def empty_record(
    neurons: int,
    top_n: int,
    device: torch.device,
    peak_roles: tuple[int, ...] = EVIDENCE,
    top_activations: int = 8,
    dtype: torch.dtype = torch.float32,
) -> LayerRecord:
    """Return an empty record.

    top_activations: activations stored per slot and role, in the number format `dtype`.
    """
    by_role = (len(ROLES), neurons)

    def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return LayerRecord(
        peak_roles=peak_roles,
        keys=torch.full((neurons, top_n), EMPTY, dtype=torch.int64, device=device),
        peak_positions=torch.full((neurons, top_n), NO_SAMPLE, dtype=torch.int32, device=device),
        slots=SlotSummaries(
            top=torch.full(
                (len(EVIDENCE), neurons, top_n, top_activations),
                -torch.inf,
                dtype=dtype,
                device=device,
            ),
            text_peak_token=torch.full((neurons, top_n), -1, dtype=torch.int32, device=device),
            active=zeros((len(EVIDENCE), neurons, top_n), torch.int32),
            visual_sum=zeros((neurons, top_n), torch.float32),
            visual_sum_sq=zeros((neurons, top_n), torch.float32),
        ),
        statistics=TokenStatistics(
            tokens=zeros((len(ROLES), 1), torch.int64),
            nonfinite=zeros(by_role, torch.int64),
            positive=zeros(by_role, torch.int64),
            total=zeros(by_role, torch.float64),
            squares=zeros(by_role, torch.float64),
            maximum=torch.full(by_role, -torch.inf, dtype=torch.float32, device=device),
            histogram=zeros((len(EVIDENCE), BLOCKS * BINS, neurons), torch.int32),
        ),
    )


def joined(records: Sequence[LayerRecord]) -> LayerRecord:
    """Return the record of a layer, given those of its experts in the order of their neurons."""
    if len(records) == 1:
        return records[0]
    parts = [one.statistics for one in records]
    statistics = {
        name: torch.cat([getattr(one, name) for one in parts], -1)
        for name in ("nonfinite", "positive", "total", "squares", "maximum", "histogram")
    }
    tokens = [one.statistics.tokens.expand(-1, one.neurons) for one in records]
    slots = {
        name: torch.cat([getattr(one.slots, name) for one in records], dim)
        for name, dim in (
            ("top", 1), ("text_peak_token", 0), ("active", 1), ("visual_sum", 0),
            ("visual_sum_sq", 0),
        )
    }  # fmt: skip
    return LayerRecord(
        peak_roles=records[0].peak_roles,
        keys=torch.cat([one.keys for one in records]),
        peak_positions=torch.cat([one.peak_positions for one in records]),
        slots=SlotSummaries(**slots),
        statistics=TokenStatistics(tokens=torch.cat(tokens, 1), **statistics),
    )


def stored_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the number format in which a record on `device` stores activations of `dtype`.

    On a GPU it is the same format, which takes little memory. On a CPU it is float32, which the
    compiled pass needs. Neither loses anything.
    """
    return torch.float32 if device.type == "cpu" else dtype
