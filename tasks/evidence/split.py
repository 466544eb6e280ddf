"""Split one neuron's samples into evidence for explainer, calibration and scorer.

The purposes share neither samples nor images: a score on pixels that the explainer saw with another
caption would be invalid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import get_args

from neuron_atlas.tasks.evidence.evidence import Purpose, Split

_EXEMPLAR_PURPOSES: tuple[Purpose, ...] = ("explainer", "scorer", "explainer", "calibration")
_RANDOM_PURPOSES: tuple[Purpose, ...] = ("scorer", "explainer", "scorer", "calibration")


def split_samples(
    exemplars: Sequence[int], random: Sequence[int], images: Mapping[int, Collection[str]]
) -> dict[int, Purpose]:
    """Return the purpose of every sample, by sample_id.

    exemplars: strongest first. images: the names of each sample's images. Samples linked by shared
    images have one purpose, which is assigned at the first of them. Purposes alternate down the
    ranking, so explainer and scorer get equally strong samples, and then over the random samples.
    Raises ValueError if two purposes share an image.
    """
    groups = _groups([*exemplars, *random], images)
    group_purposes: dict[int, Purpose] = {}
    purposes: dict[int, Purpose] = {}
    for sample_ids, cycled in ((exemplars, _EXEMPLAR_PURPOSES), (random, _RANDOM_PURPOSES)):
        next_purposes = cycle(cycled)
        for sample_id in sample_ids:
            group = groups[sample_id]
            if group not in group_purposes:
                group_purposes[group] = next(next_purposes)
            purposes[sample_id] = group_purposes[group]
    by_purpose: dict[str, list[int]] = {name: [] for name in get_args(Purpose)}
    for sample_id, purpose in purposes.items():
        by_purpose[purpose].append(sample_id)
    Split(**{name: tuple(ids) for name, ids in by_purpose.items()}).check_images(images)
    return purposes


def _groups(sample_ids: Sequence[int], images: Mapping[int, Collection[str]]) -> dict[int, int]:
    """Return the group of every sample: samples linked by shared images have the same group
    (union-find, named by one of its sample_ids)."""
    parents = {sample_id: sample_id for sample_id in sample_ids}

    def root(sample_id: int) -> int:
        while parents[sample_id] != sample_id:
            sample_id = parents[sample_id]
        return sample_id

    first: dict[str, int] = {}
    for sample_id in sample_ids:
        for image in images[sample_id]:
            parents[root(sample_id)] = root(first.setdefault(image, sample_id))
    return {sample_id: root(sample_id) for sample_id in sample_ids}
