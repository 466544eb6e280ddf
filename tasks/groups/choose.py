"""Choose the samples on which groups are measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    CONCEPTS,
    DESCRIPTIONS,
    SAMPLES,
    USABLE,
    read_table,
)
from neuron_atlas.tasks.artifacts.grouped import GROUP_SAMPLES
from neuron_atlas.tasks.evidence.choose import image_names
from neuron_atlas.tasks.groups.effects import CHOOSE, REPORT
from neuron_atlas.tasks.groups.naming import OBJECT
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.source import Source

MEASURED, SET_ASIDE = "measured", "set_aside"


def choose_samples(
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    concepts: Sequence[Path],
    source: Source,
    count: int,
    described: int,
    seed: int,
) -> pa.Table:
    """Return rows of `group_samples`: `count` samples with an image and a text, drawn at random.

    Samples that share an image with them are set aside: they decide no type either. The halves of
    steering share no image.
    """
    usable = usable_with_image(descriptions)
    drawn = draw_random(usable, count, seed)
    images = image_names(samples, usable)
    halves = _halves(drawn, images)
    measured = list(halves)
    shown = {name for one in measured for name in images[one]}
    aside = [one for one in usable if one not in halves and not shown.isdisjoint(images[one])]
    truths = _truths(samples, concepts, source, measured)
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(measured):
        truth = truths.get(one)
        rows.append(
            {
                "sample_id": one,
                "use": MEASURED,
                "half": halves[one],
                "described": place < described,
                "kind": None if truth is None else [kind for kind, _ in truth],
                "name": None if truth is None else [name for _, name in truth],
            }
        )
    nothing = {"half": "", "described": False, "kind": None, "name": None}
    rows += [{"sample_id": one, "use": SET_ASIDE} | nothing for one in aside]
    return pa.Table.from_pylist(rows, schema=GROUP_SAMPLES.schema)


def usable_with_image(descriptions: Sequence[Path]) -> list[int]:
    """Return the ids of the usable samples that have an image and a text."""
    columns = ["sample_id", "status", "n_visual", "n_text"]
    rows = read_table(descriptions, DESCRIPTIONS, columns)
    rows = rows.filter(pc.is_in(rows["status"], value_set=pa.array(USABLE)))
    for name in ("n_visual", "n_text"):
        rows = rows.filter(pc.greater(rows[name], 0))
    return rows["sample_id"].to_pylist()


def truths_of(rows: pa.Table) -> dict[int, set[tuple[str, str]]]:
    """Return kind and name of what is in each image, from rows of `group_samples`; samples whose
    truth is not known are left out."""
    return {
        row["sample_id"]: set(zip(row["kind"], row["name"], strict=True))
        for row in rows.to_pylist()
        if row["kind"] is not None
    }


def _halves(drawn: Sequence[int], images: Mapping[int, Collection[str]]) -> dict[int, str]:
    """Return the half of each sample, in turn. A sample that links both halves has none."""
    half_of_image: dict[str, str] = {}
    halves: dict[int, str] = {}
    for one in drawn:
        linked = {half_of_image[name] for name in images[one] if name in half_of_image}
        if len(linked) > 1:
            continue
        half = linked.pop() if linked else (CHOOSE, REPORT)[len(halves) % 2]
        halves[one] = half
        half_of_image |= dict.fromkeys(images[one], half)
    return halves


def _truths(
    samples: Sequence[Path], concepts: Sequence[Path], source: Source, measured: Collection[int]
) -> dict[int, list[tuple[str, str]]]:
    columns = ["sample_id", "kind", "concept"]
    rows = read_table(concepts, CONCEPTS, columns, sample_ids=measured)
    found: dict[int, list[tuple[str, str]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["sample_id"], []).append((row["kind"], row["concept"]))
    if found:
        return found
    listed = read_table(samples, SAMPLES, ["sample_id", "source_id"], sample_ids=measured)
    ids = {row["source_id"]: row["sample_id"] for row in listed.to_pylist()}
    return {
        ids[source_id]: [(OBJECT, name) for name in dict.fromkeys(names)]
        for source_id, names in source.objects(ids.keys()).items()
        if source_id in ids
    }
