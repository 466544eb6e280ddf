"""How a dataset is cut into shards, decided on the driver, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from tasks.capture.random_samples import draw_random
from tasks.capture.settings import CaptureSettings

_SAMPLES_A_SHARD = 256


@dataclass(frozen=True)
class ShardPlan:
    """One work item: consecutive usable samples, and what all shards of a capture share.

    random_ids: of the whole dataset; a shard keeps those that are its own.
    """

    sample_ids: tuple[int, ...]
    layers: tuple[int, ...]
    random_ids: tuple[int, ...]
    max_visual: int
    max_text: int
    settings: CaptureSettings

    @property
    def name(self) -> str:
        """Names the shard's folder by the samples that decide its content."""
        ids = hashlib.sha256(repr(self.sample_ids).encode()).hexdigest()[:8]
        return f"shard-{self.sample_ids[0]:08d}-{self.sample_ids[-1]:08d}-{ids}"


def plan_shards(
    descriptions: pa.Table, layers: Sequence[int], settings: CaptureSettings
) -> list[ShardPlan]:
    """Cut the usable samples of `descriptions` into shards of nearly equal size.

    Reads sample_id, n_visual, n_text and status. The number of shards depends on the samples and
    the settings alone, so a run resumed on other machines finds the same shards.
    """
    usable = descriptions.filter(
        pc.is_in(descriptions["status"], value_set=pa.array(["ok", "truncated"]))
    )
    sample_ids = sorted(usable["sample_id"].to_pylist())
    if not sample_ids:
        return []
    count = min(len(sample_ids), settings.shards or -(-len(sample_ids) // _SAMPLES_A_SHARD))
    random_ids = tuple(draw_random(sample_ids, settings.random_samples, settings.seed))
    edges = [len(sample_ids) * shard // count for shard in range(count + 1)]
    return [
        ShardPlan(
            sample_ids=tuple(sample_ids[start:stop]),
            layers=tuple(layers),
            random_ids=random_ids,
            max_visual=pc.max(usable["n_visual"]).as_py(),
            max_text=pc.max(usable["n_text"]).as_py(),
            settings=settings,
        )
        for start, stop in pairwise(edges)
    ]
