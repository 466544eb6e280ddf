"""Check a capture: its kernel against plain torch, its memory, and its rows by batch size."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.capture_stage import MERGED, capture_stage, stage_plans
from bench.subjects import Subjects
from neuron_atlas.tasks.artifacts import MOMENTS, ROLES, exemplars_spec, layer_file, read_table
from neuron_atlas.tasks.capture import observe
from neuron_atlas.tasks.capture.demand import plan_shard_memory
from neuron_atlas.tasks.capture.self_check import first_difference
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.subject.hook_points import decoder_layers
from neuron_atlas.tasks.subject.load import Subject

BATCH_SIZES = (1, 8, 32)
_COMPARED_SAMPLES = 64
"""Samples whose rows are compared between batch sizes."""
_GB = 1e9


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within the block, capture observes with plain torch instead of its kernel."""
    with mock.patch.object(observe, "observe_backend", return_value="torch"):
        yield


def kernel_difference(subject: Subject) -> str:
    """Return the first difference of the kernel's record from plain torch's; "" if there is none,
    and a message if the device has no kernel."""
    dtype = subject.model.dtype
    if subject.device.type == "cuda":
        try:
            from neuron_atlas.tasks.capture import observe_fused
        except ImportError as error:
            return f"no kernel: {error}"
        return first_difference(observe_fused.observe, subject.device, dtype)
    try:
        from neuron_atlas.tasks.capture import observe_compiled
    except ImportError as error:
        return f"no kernel: {error}"
    return first_difference(observe_compiled.observe, subject.device, dtype)


def memory(one: Subjects, settings: CaptureSettings, folder: Path) -> dict[str, float]:
    """Return the memory of the largest shard's capture, by plan and as measured, GB.

    On a GPU, measured is the peak of torch's allocations on it; on a CPU, the peak resident memory
    of this process so far, the interpreter and the encoded samples included.
    """
    plan = max(stage_plans(one, settings), key=lambda shard: len(shard.sample_ids))
    planned = plan_shard_memory(one.subject, plan)
    demand = planned.demand
    weights = demand.weights
    on_gpu = one.subject.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(one.subject.device)
        capture_stage(one, settings, folder)
        measured = torch.cuda.max_memory_allocated(one.subject.device)
    else:
        measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "weights_gb": round(weights / _GB, 3),
        "planned_gb": round((weights + demand.work + demand.records) / _GB, 3),
        "measured_gb": round(measured / _GB, 3),
        "measured_next_to_weights_gb": round((measured - weights) / _GB, 3),
    }


def batch_differences(
    one: Subjects,
    settings: CaptureSettings,
    folder: Path,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> dict[int, dict[str, Any]]:
    """Return how the rows of each batch size differ from those of the first one.

    same_samples: the share of exemplar slots with the same sample. same_tokens: of those, the share
    with the same peak token. peak: the largest relative difference of their peaks. swapped: over
    the slots with different samples, the largest relative difference of the two peaks; it is as
    small as that of `peak` if only near ties change places. mean: the largest difference of a mean
    activation, in standard deviations.
    """
    some = replace(
        one,
        described=one.described.slice(0, _COMPARED_SAMPLES),
        encoded=one.encoded[:_COMPARED_SAMPLES],
    )
    for size in batch_sizes:
        capture_stage(some, replace(settings, batch_size=size), folder / str(size))
    layers = range(len(decoder_layers(one.subject)))
    first, *others = batch_sizes
    return {
        size: _worst(
            [
                layer_difference(
                    folder / str(first) / MERGED, folder / str(size) / MERGED, layer, settings
                )
                for layer in layers
            ]
        )
        for size in others
    }


def _worst(layers: Sequence[dict[str, float]]) -> dict[str, Any]:
    lowest = ("same_samples", "same_tokens")
    return {
        name: float(f"{(min if name in lowest else max)(one[name] for one in layers):.6g}")
        for name in layers[0]
    }


def layer_difference(
    first: Path, second: Path, layer: int, settings: CaptureSettings
) -> dict[str, float]:
    """Return how one layer of two merged artifacts differs; see `batch_differences`."""
    spec = exemplars_spec(settings.top_n)
    columns = ("sample_id", "peak", "peak_token")
    one, other = (
        read_table(folder / layer_file(spec.name, layer), spec, columns)
        for folder in (first, second)
    )
    a, b = (
        {name: table[name].combine_chunks().flatten().to_numpy() for name in columns}
        for table in (one, other)
    )
    same = a["sample_id"] == b["sample_id"]
    scale = np.maximum(np.abs(a["peak"]), np.finfo(np.float32).tiny)
    relative = np.nan_to_num(np.abs(a["peak"] - b["peak"]) / scale)
    moments = [
        read_table(folder / layer_file(MOMENTS.name, layer), MOMENTS) for folder in (first, second)
    ]
    mean = 0.0
    for role in ROLES:
        values, others = (table[f"mean_{role}"].to_numpy() for table in moments)
        n, m2 = (moments[0][f"{name}_{role}"].to_numpy() for name in ("n", "m2"))
        deviation = np.sqrt(m2 / np.maximum(n, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = max(mean, float(np.nan_to_num(np.abs(values - others) / deviation).max()))
    return {
        "same_samples": float(same.mean()),
        "same_tokens": float((a["peak_token"] == b["peak_token"])[same].mean()),
        "peak": float(relative[same].max(initial=0)),
        "swapped": float(relative[~same].max(initial=0)),
        "mean": mean,
    }
