"""Samples drawn at random: the background against which exemplars are judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def draw_random(sample_ids: Iterable[int], count: int, seed: int) -> list[int]:
    """`count` of `sample_ids` (fewer if there are fewer), in ascending order.

    Each id has a fixed lot by hash, so the draw does not depend on order or on who draws, and a
    few more samples in the dataset change few of those drawn.
    """

    def lot(sample_id: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest()

    return sorted(sorted(sample_ids, key=lot)[:count])
