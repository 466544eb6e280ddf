"""What the subject says with one neuron clamped, next to what it says without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from neuron_atlas.tasks.artifacts.grouped import PICTURES, SAYINGS
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.effects.intervention import Intervention, InterventionError, intervening
from neuron_atlas.tasks.subject.generate import generate_descriptions
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint

PERCENTILE = 0.99
_GRAY = (128, 128, 128)
_ROLES = ("visual", "text")

Neuron = tuple[int, int]


def say_clamped(
    subject: Subject,
    values: Mapping[Neuron, float],
    image: Image.Image,
    sample_id: int,
    hook_point: HookPoint,
    max_new_tokens: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return rows of `sayings`: each neuron on a gray image of the same size and on the sample.

    values: the activation at which each neuron is clamped at every token: it is at least as high. A
    neuron whose value is not above 0 is silent. on_batch: called with the number of neurons of each
    batch.
    """
    neutral = Image.new("RGB", image.size, _GRAY)
    pictures = dict(zip(PICTURES, (neutral, image), strict=True))
    without = {
        name: _say(subject, [picture], [], hook_point, max_new_tokens)[0]
        for name, picture in pictures.items()
    }
    said: dict[Neuron, dict[str, str | None]] = {neuron: {} for neuron in values}
    active = [neuron for neuron, value in values.items() if value > 0]
    for start in range(0, len(active), batch_size):
        some = active[start : start + batch_size]
        for name, picture in pictures.items():
            texts = _say_each(subject, picture, some, values, hook_point, max_new_tokens)
            for neuron, text in zip(some, texts, strict=True):
                said[neuron][name] = text
        on_batch(len(some))
    on_batch(len(values) - len(active))
    rows = [
        {
            "layer": neuron[0],
            "neuron": neuron[1],
            "value": max(0.0, values[neuron]),
            "sample_id": sample_id,
            "status": _status(said[neuron]),
        }
        | _columns(without, said[neuron])
        for neuron in sorted(values)
    ]
    return pa.Table.from_pylist(rows, schema=SAYINGS.schema)


def clamp_values(histograms: pa.Table, moments: pa.Table) -> dict[Neuron, float]:
    """Return the 99th percentile of each neuron's activations above 2^-7, over visual and text
    tokens; 0 if there are none.

    Interpolated within a bin, and at most the highest activation. Most neurons are inactive at most
    tokens, so the percentile of all activations would say little.
    """
    highest = {
        row["neuron"]: max(row[f"max_{role}"] for role in _ROLES if row[f"n_{role}"])
        if any(row[f"n_{role}"] for role in _ROLES)
        else 0.0
        for row in moments.to_pylist()
    }
    edges = bin_edges()
    values = {}
    for row in histograms.to_pylist():
        counts = np.sum([np.reshape(row[role], (BLOCKS, BINS)).sum(0) for role in _ROLES], axis=0)
        above = counts[1:].astype(float)
        value = 0.0
        if above.sum():
            reached = above.cumsum() / above.sum()
            place = int(np.searchsorted(reached, PERCENTILE))
            low = edges[1 + place]
            high = edges[2 + place] if 2 + place < BINS else highest[row["neuron"]]
            before = reached[place - 1] if place else 0.0
            value = low + (high - low) * (PERCENTILE - before) / (reached[place] - before)
        values[row["layer"], row["neuron"]] = float(min(value, highest[row["neuron"]]))
    return values


def _say_each(
    subject: Subject,
    picture: Image.Image,
    neurons: Sequence[Neuron],
    values: Mapping[Neuron, float],
    hook_point: HookPoint,
    max_new_tokens: int,
) -> list[str | None]:
    """Return what the subject says with each neuron clamped in a row of one batch."""
    changes = [
        Intervention(layer, (neuron,), "clamp", values[layer, neuron], (row,))
        for row, (layer, neuron) in enumerate(neurons)
    ]
    pictures = [picture] * len(neurons)
    try:
        return list(_say(subject, pictures, changes, hook_point, max_new_tokens))
    except InterventionError:
        if len(neurons) == 1:
            return [None]
        return [
            text
            for neuron in neurons
            for text in _say_each(subject, picture, [neuron], values, hook_point, max_new_tokens)
        ]


def _say(
    subject: Subject,
    pictures: Sequence[Image.Image],
    changes: Sequence[Intervention],
    hook_point: HookPoint,
    max_new_tokens: int,
) -> list[str]:
    with intervening(subject, changes, hook_point) if changes else nullcontext():
        said = generate_descriptions(subject, [[one] for one in pictures], max_new_tokens)
    return [text for text, _ in said]


def _status(said: Mapping[str, str | None]) -> str:
    if not said:
        return "silent"
    return "overflow" if None in said.values() else "ok"


def _columns(without: Mapping[str, str], said: Mapping[str, str | None]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, text in without.items():
        changed = said.get(name)
        before, after = words_of(text), words_of(text if changed is None else changed)
        columns |= {
            f"{name}_without": text,
            f"{name}_with": changed or "",
            f"{name}_added": list(dict.fromkeys(one for one in after if one not in before)),
            f"{name}_lost": list(dict.fromkeys(one for one in before if one not in after)),
        }
    return columns
