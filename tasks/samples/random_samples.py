"""Draw random samples, the baseline that exemplars are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def draw_random(sample_ids: Iterable[int], count: int, seed: int) -> list[int]:
    """Return `count` of `sample_ids` (all, if there are fewer) in ascending order.

    Each id is ranked by a hash, so the draw depends only on the ids and the seed. Adding a few
    samples to the dataset changes few of the drawn ones.
    """

    def hashed(sample_id: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest()

    return sorted(sorted(sample_ids, key=hashed)[:count])
