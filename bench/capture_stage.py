"""Run the capture stage as the program does: shards of samples, then the merge of every layer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.subjects import Samples, Subjects
from neuron_atlas.tasks.capture.merge import merge_layer
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard import capture_shard
from neuron_atlas.tasks.capture.shard_plan import ShardPlan, plan_shards
from neuron_atlas.tasks.subject.encode import EncodedSample, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer
from neuron_atlas.tasks.subject.prefetch import prefetch

MERGED = "merged"
_SHARDS = "shards"
_THREADS_WITH_GPU = 4
"""Threads that open and encode samples, as in the stage."""


def capture_stage(one: Subjects, settings: CaptureSettings, folder: Path) -> float:
    """Capture all samples into `folder`; return the seconds of the merge.

    The artifact is in `folder`/MERGED.
    """
    shards = []
    for plan in stage_plans(one, settings):
        shards.append(folder / _SHARDS / plan.name)
        shards[-1].parent.mkdir(parents=True, exist_ok=True)
        capture_shard(one.subject, plan, one.catalog, shards[-1])
    start = time.perf_counter()
    for layer in range(len(decoder_layers(one.subject))):
        merge_layer(shards, layer, settings.top_n, folder / MERGED)
    return time.perf_counter() - start


def stage_plans(one: Subjects, settings: CaptureSettings) -> list[ShardPlan]:
    """Return the shards of the stage."""
    layers = range(len(decoder_layers(one.subject)))
    return plan_shards(one.described, layers, settings, neurons_per_layer(one.subject))


def prepared_samples(
    one: Subjects, settings: CaptureSettings
) -> Iterator[tuple[int, EncodedSample]]:
    """Open and encode the samples as the stage does, longest first."""

    def prepare(sample_id: int) -> tuple[int, EncodedSample]:
        images = one.catalog.open_images(sample_id)
        return sample_id, encode(one.subject, images, one.catalog[sample_id].text)

    threads = _THREADS_WITH_GPU if one.subject.device.type == "cuda" else 0
    sample_ids = [sample_id for sample_id, _ in longest_first(one.encoded)]
    return prefetch(sample_ids, prepare, threads, 2 * settings.batch_size)


def longest_first(samples: Samples) -> Samples:
    """Return the samples, longest first, as the stage runs them."""
    return sorted(samples, key=lambda sample: len(sample[1].input_ids), reverse=True)


def folder_bytes(folder: Path) -> dict[str, int]:
    """Return the bytes of the shards and of the merged artifact below `folder`."""
    return {
        name: sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
        for name in (_SHARDS, MERGED)
    }
