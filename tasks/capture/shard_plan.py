"""Split a dataset into shards; runs on the driver, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import USABLE
from neuron_atlas.tasks.capture.settings import CaptureSettings

_WORK_ON_CPU, _WORK_ON_GPU = 2e12, 3e16
"""Tokens times parameters that take about five minutes: on one core, with about 10 GFLOP/s for
narrow layers and their activations, and on a GPU with 200 TFLOP/s."""
_LARGE = 1e9
"""Parameters from which a subject is assumed to run on a GPU."""

_LEAST_SHARDS = 4
"""A small dataset still has two shards for each of two actors..."""
_SAMPLES_PER_EXEMPLAR = 4
"""...of at least this many samples for each of a neuron's exemplars: every shard writes its own top
N, so shards of fewer samples would write nearly all they see."""


@dataclass(frozen=True)
class ShardPlan:
    """One work item: consecutive usable samples, and the settings of the capture.

    max_visual, max_text: maximum number of visual and of text tokens of its samples.
    """

    sample_ids: tuple[int, ...]
    layers: tuple[int, ...]
    max_visual: int
    max_text: int
    settings: CaptureSettings

    @property
    def name(self) -> str:
        """Name of the shard's folder, derived from its samples and layers."""
        ids = hashlib.sha256(repr((self.sample_ids, self.layers)).encode()).hexdigest()[:8]
        return f"shard-{self.sample_ids[0]:08d}-{self.sample_ids[-1]:08d}-{ids}"


def plan_shards(
    descriptions: pa.Table,
    layers: Sequence[int],
    settings: CaptureSettings,
    parameters: int,
) -> list[ShardPlan]:
    """Split the usable samples of `descriptions` into shards of nearly equal size.

    Reads sample_id, n_visual, n_text and status. parameters: of the subject. A shard takes about
    five minutes, which is what a kill can lose. The shards depend only on the samples, the subject
    and the settings, so a run resumed on other machines finds the same shards.
    """
    usable = descriptions.filter(
        pc.is_in(descriptions["status"], value_set=pa.array(USABLE))
    ).sort_by("sample_id")
    sample_ids = usable["sample_id"].to_pylist()
    if not sample_ids:
        return []
    visual, text = usable["n_visual"].to_pylist(), usable["n_text"].to_pylist()
    count = min(
        len(sample_ids),
        settings.shards
        or _shard_count(len(sample_ids), sum(visual) + sum(text), parameters, settings.top_n),
    )
    edges = [len(sample_ids) * shard // count for shard in range(count + 1)]
    return [
        ShardPlan(
            sample_ids=tuple(sample_ids[start:stop]),
            layers=tuple(layers),
            max_visual=max(visual[start:stop]),
            max_text=max(text[start:stop]),
            settings=settings,
        )
        for start, stop in pairwise(edges)
    ]


def _shard_count(n_samples: int, tokens: int, parameters: int, top_n: int) -> int:
    work_per_shard = _WORK_ON_GPU if parameters >= _LARGE else _WORK_ON_CPU
    by_work = ceil(tokens * parameters / work_per_shard)
    return max(1, by_work, min(_LEAST_SHARDS, n_samples // (_SAMPLES_PER_EXEMPLAR * top_n)))
