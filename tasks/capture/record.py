"""What is kept of one layer while samples stream by: top N, traces, moments and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from neuron_atlas.tasks.artifacts import NO_SAMPLE, ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.top_n import EMPTY, unpack
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

EVIDENCE = (VISUAL, TEXT)
"""The roles whose tokens are evidence, in the order in which a trace holds them."""


@dataclass(frozen=True)
class Layout:
    """Room for one trace: at most `visual` visual tokens, then at most `text` text tokens."""

    visual: int
    text: int

    @property
    def tokens(self) -> int:
        """Visual and text tokens together."""
        return self.visual + self.text


@dataclass
class RunningSums:
    """Running sums over all tokens of each role, on the layer's device.

    tokens: int64 [roles], tokens seen. nonfinite, positive: int64 [roles, neurons], activations
    that are no finite number, and those above 0. total, squares: float64 [roles, neurons], sums
    over the finite ones. maximum: float32 [roles, neurons]. histogram: int32 [visual and text,
    BLOCKS * BINS, neurons], see tasks/artifacts/histogram.py.

    The sums of one sample are in float32 and those of samples in float64, so a mean is known to
    about a millionth of the largest activations.
    """

    tokens: torch.Tensor
    nonfinite: torch.Tensor
    positive: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor
    maximum: torch.Tensor
    histogram: torch.Tensor

    def mean_and_m2(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Means, and sums of squared deviations from them, float64 [roles, neurons]."""
        n = (self.tokens[:, None] - self.nonfinite).clamp(min=1).double()
        mean = self.total / n
        return mean, (self.squares - n * mean.square()).clamp(min=0)


@dataclass
class LayerRecord:
    """The running record of one layer, on that layer's device.

    keys: int64 [neurons, N], packed peaks and sample_ids (see top_n). peak_places: int32
    [neurons, N], index of the peak within the trace's layout. peak_roles: the roles over which a
    sample's peak is taken. traces: float16 [neurons, N, layout.tokens], possibly in host memory;
    None where they are gathered in a later pass. random_traces: float16 [neurons, random samples,
    layout.tokens] beside them, for the samples in `random_slots`.
    """

    layout: Layout
    peak_roles: tuple[int, ...]
    keys: torch.Tensor
    peak_places: torch.Tensor
    tally: RunningSums
    random_slots: dict[int, int]
    traces: torch.Tensor | None = None
    random_traces: torch.Tensor | None = None

    @property
    def neurons(self) -> int:
        """Neurons of the layer."""
        return len(self.keys)

    def make_room_for_traces(self, device: torch.device) -> None:
        """Give the layer its trace buffers, on a device of its own or in host memory."""
        shape = (self.neurons, self.keys.shape[1], self.layout.tokens)
        random = (self.neurons, len(self.random_slots), self.layout.tokens)
        self.traces = torch.zeros(shape, dtype=torch.float16, device=device)
        self.random_traces = torch.zeros(random, dtype=torch.float16, device=device)

    def slot_samples(self) -> torch.Tensor:
        """The sample_id int64 [neurons, N] of every slot, NO_SAMPLE where it is empty."""
        return unpack(self.keys)[1]


def empty_record(
    neurons: int,
    top_n: int,
    layout: Layout,
    random_ids: Sequence[int],
    device: torch.device,
    peak_roles: tuple[int, ...] = EVIDENCE,
) -> LayerRecord:
    """A record of nothing yet, without room for traces."""
    by_role = (len(ROLES), neurons)

    def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return LayerRecord(
        layout=layout,
        peak_roles=peak_roles,
        keys=torch.full((neurons, top_n), EMPTY, dtype=torch.int64, device=device),
        peak_places=torch.full((neurons, top_n), NO_SAMPLE, dtype=torch.int32, device=device),
        tally=RunningSums(
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
