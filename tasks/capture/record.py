"""Running record of one layer: top N, traces, moments and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from neuron_atlas.tasks.artifacts import NO_SAMPLE, ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.top_n import EMPTY, unpack
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

EVIDENCE = (VISUAL, TEXT)
"""Roles whose tokens are evidence, in the order of a trace."""


@dataclass(frozen=True)
class Layout:
    """Layout of one trace: up to `visual` visual tokens, then up to `text` text tokens."""

    visual: int
    text: int

    @property
    def tokens(self) -> int:
        """Total number of tokens."""
        return self.visual + self.text


@dataclass
class TokenStatistics:
    """Running sums over all tokens of each role, on the layer's device.

    tokens: int64 [roles], number of tokens. nonfinite, positive: int64 [roles, neurons], number of
    activations that are infinite or NaN, and above 0. total, squares: float64 [roles, neurons],
    sums over finite activations. maximum: float32 [roles, neurons], highest finite activation.
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
        n = (self.tokens[:, None] - self.nonfinite).clamp(min=1).double()
        mean = self.total / n
        return mean, (self.squares - n * mean.square()).clamp(min=0)


@dataclass
class LayerRecord:
    """Running record of one layer, on the layer's device.

    keys: int64 [neurons, N], packed peaks and sample_ids (see top_n). peak_positions: int32
    [neurons, N], index of the peak within the trace's layout. peak_roles: the roles over which a
    sample's peak is taken. traces: float16 [neurons, N, layout.tokens], on the layer's device or in
    host memory; None if a later pass collects them. random_traces: float16 [neurons, random
    samples, layout.tokens], on the same device as traces. random_slots: for each random sample, its
    index in random_traces.
    """

    layout: Layout
    peak_roles: tuple[int, ...]
    keys: torch.Tensor
    peak_positions: torch.Tensor
    statistics: TokenStatistics
    random_slots: dict[int, int]
    traces: torch.Tensor | None = None
    random_traces: torch.Tensor | None = None

    @property
    def neurons(self) -> int:
        """Number of neurons of the layer."""
        return len(self.keys)

    def allocate_traces(self, device: torch.device) -> None:
        """Allocate the trace buffers on `device`: the layer's device, or host memory."""
        shape = (self.neurons, self.keys.shape[1], self.layout.tokens)
        random = (self.neurons, len(self.random_slots), self.layout.tokens)
        self.traces = torch.zeros(shape, dtype=torch.float16, device=device)
        self.random_traces = torch.zeros(random, dtype=torch.float16, device=device)

    def slot_samples(self) -> torch.Tensor:
        """Return the sample_id of every slot: int64 [neurons, N], NO_SAMPLE if empty."""
        return unpack(self.keys)[1]


def empty_record(
    neurons: int,
    top_n: int,
    layout: Layout,
    random_ids: Sequence[int],
    device: torch.device,
    peak_roles: tuple[int, ...] = EVIDENCE,
) -> LayerRecord:
    """Return an empty record without trace buffers."""
    by_role = (len(ROLES), neurons)

    def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return LayerRecord(
        layout=layout,
        peak_roles=peak_roles,
        keys=torch.full((neurons, top_n), EMPTY, dtype=torch.int64, device=device),
        peak_positions=torch.full((neurons, top_n), NO_SAMPLE, dtype=torch.int32, device=device),
        statistics=TokenStatistics(
            tokens=zeros((len(ROLES),), torch.int64),
            nonfinite=zeros(by_role, torch.int64),
            positive=zeros(by_role, torch.int64),
            total=zeros(by_role, torch.float64),
            squares=zeros(by_role, torch.float64),
            maximum=torch.full(by_role, -torch.inf, dtype=torch.float32, device=device),
            histogram=zeros((len(EVIDENCE), BLOCKS * BINS, neurons), torch.int32),
        ),
        random_slots={sample_id: slot for slot, sample_id in enumerate(random_ids)},
    )
