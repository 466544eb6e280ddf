"""Split the chosen samples into shards, the work items of the replay. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

_MOST_SAMPLES = 256
_FEWEST_SAMPLES = 32
_SHARDS = 8
"""A replay has at least this many shards, if they have enough samples, so that actors share it."""
_TRACE_BYTES = 256 * 2**20
"""Most bytes of traces in a shard, which are in memory until the shard is written."""


@dataclass(frozen=True)
class ReplayShard:
    """Samples of one work item. Samples that share an image are next to each other."""

    sample_ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the shard, derived from its samples."""
        ids = hashlib.sha256(repr(self.sample_ids).encode()).hexdigest()[:8]
        return f"shard-{self.sample_ids[0]:08d}-{len(self.sample_ids)}-{ids}"


def plan_replay(
    trace_bytes: Mapping[int, int], images: Mapping[int, Collection[str]]
) -> list[ReplayShard]:
    """Split samples into shards. Samples that share an image are in one shard, if they fit.

    trace_bytes: bytes of the traces wanted of each sample. images: names of each sample's images.
    """
    count = len(trace_bytes)
    most = min(_MOST_SAMPLES, max(_FEWEST_SAMPLES, -(-count // _SHARDS)))
    shards: list[ReplayShard] = []
    current: list[int] = []
    for group in _groups(sorted(trace_bytes), images):
        for part in _cut(group, most):
            grown = [*current, *part]
            if current and (len(grown) > most or _bytes(grown, trace_bytes) > _TRACE_BYTES):
                shards.append(ReplayShard(tuple(current)))
                grown = list(part)
            current = grown
    return [*shards, ReplayShard(tuple(current))] if current else shards


def _groups(
    sample_ids: Sequence[int], images: Mapping[int, Collection[str]]
) -> Iterator[list[int]]:
    """Yield samples in groups that share an image, by the first sample of each group."""
    first: dict[str, int] = {}
    leaders = {}
    for sample_id in sample_ids:
        shared = [first[name] for name in images[sample_id] if name in first]
        leaders[sample_id] = min(shared, default=sample_id)
        for name in images[sample_id]:
            first.setdefault(name, leaders[sample_id])
    ordered = sorted(sample_ids, key=lambda one: (leaders[one], one))
    for _, group in groupby(ordered, key=leaders.__getitem__):
        yield list(group)


def _cut(group: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    return (group[start : start + most] for start in range(0, len(group), most))


def _bytes(sample_ids: Sequence[int], trace_bytes: Mapping[int, int]) -> int:
    return sum(trace_bytes[one] for one in sample_ids)
