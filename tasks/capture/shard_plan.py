"""Split a dataset into shards; runs on the driver, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import USABLE
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.samples.random_samples import draw_random

_SAMPLES_PER_SHARD = 256
_TRACE_BYTES_PER_SAMPLE = 8 * 2**20
"""A shard writes a full top N of every neuron, even with few samples. It gets enough samples that
their forward passes take longer than writing: one per this many bytes of traces."""


@dataclass(frozen=True)
class ShardPlan:
    """One work item: consecutive usable samples, and the settings of the capture.

    random_ids: the dataset's random samples that are in this shard.
    max_visual, max_text: maximum number of visual and of text tokens of its samples.
    """

    sample_ids: tuple[int, ...]
    layers: tuple[int, ...]
    random_ids: tuple[int, ...]
    max_visual: int
    max_text: int
    settings: CaptureSettings

    @property
    def max_trace_tokens(self) -> int:
        """Maximum number of tokens in one neuron's traces, which take most of the memory."""
        traces = self.settings.top_n + len(self.random_ids)
        return traces * (self.max_visual + self.max_text)

    @property
    def name(self) -> str:
        """Name of the shard's folder, derived from its samples and layers."""
        ids = hashlib.sha256(repr((self.sample_ids, self.layers)).encode()).hexdigest()[:8]
        return f"shard-{self.sample_ids[0]:08d}-{self.sample_ids[-1]:08d}-{ids}"


def plan_shards(
    descriptions: pa.Table,
    layers: Sequence[int],
    settings: CaptureSettings,
    neurons_per_layer: int,
) -> list[ShardPlan]:
    """Split the usable samples of `descriptions` into shards of nearly equal size.

    Reads sample_id, n_visual, n_text and status. The shards depend only on the samples, the
    subject and the settings, so a run resumed on other machines finds the same shards.
    """
    usable = descriptions.filter(
        pc.is_in(descriptions["status"], value_set=pa.array(USABLE))
    ).sort_by("sample_id")
    sample_ids = usable["sample_id"].to_pylist()
    if not sample_ids:
        return []
    visual, text = usable["n_visual"].to_pylist(), usable["n_text"].to_pylist()
    neurons = len(layers) * neurons_per_layer
    trace_bytes = neurons * settings.top_n * (max(visual) + max(text)) * 2
    per_shard = max(_SAMPLES_PER_SHARD, trace_bytes // _TRACE_BYTES_PER_SAMPLE)
    count = min(len(sample_ids), settings.shards or -(-len(sample_ids) // per_shard))
    random_ids = set(draw_random(sample_ids, settings.random_samples, settings.seed))
    edges = [len(sample_ids) * shard // count for shard in range(count + 1)]
    return [
        ShardPlan(
            sample_ids=tuple(sample_ids[start:stop]),
            layers=tuple(layers),
            random_ids=tuple(sorted(random_ids.intersection(sample_ids[start:stop]))),
            max_visual=max(visual[start:stop]),
            max_text=max(text[start:stop]),
            settings=settings,
        )
        for start, stop in pairwise(edges)
    ]
