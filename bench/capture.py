"""Compare the capture stage with the bare forward pass, and check its kernel.

    python -m bench.capture [--shape bundled|wide|llava-1.5-7b] [--samples 1024] [--rounds 5]
                            [--layers N] [--batch-size 16] [--threads N] [--out FILE]

Runs these methods over the same samples, interleaved in one process:

    forward   the forward pass alone, over encoded samples
    kernel    the same with peaks, moments and histograms of all neurons, in memory
    bare      from image and text to the forward pass, with nothing recorded
    stage     from image and text to the artifact on disk: shards, then their merge
    usual     the usual implementation, for the bundled subject (see bench/baseline.py)

Then compares the kernel with plain torch, in rows and in time; the memory with the plan; and the
rows of batches of 1, 8 and 32 samples. Needs only torch, transformers, pyarrow and triton (and
annotated-types, Pillow and psutil), so it runs on any GPU machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.baseline import capture_baseline
from bench.capture_checks import batch_differences, kernel_difference, memory, plain_torch
from bench.capture_stage import capture_stage, folder_bytes, longest_first, prepared_samples
from bench.subjects import SHAPES, Samples, Subjects, subject_and_samples
from neuron_atlas.tasks.capture.capture import RecordSpec, capture
from neuron_atlas.tasks.capture.observe import observe_backend
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer
from neuron_atlas.tasks.subject.load import Subject

TOP_N = 50
BASELINE_SHARE = 64
"""The usual implementation is slow, so it gets one in this many samples."""

TARGETS = {"cpu": 1.25, "cuda": 1.10}
OBSERVED_TARGET = 1.10
NS_TARGET = 6.0
BASELINE_TARGET = 10.0
MEMORY_TARGET_GB = 3.0
"""Peak memory of a capture next to the weights, at the shape of LLaVA-1.5-7B."""

_DEFAULTS = {
    "bundled": (1024, 5),
    "wide": (400, 3),
    "llava-1.5-7b": (256, 2),
    "llava-tiny": (24, 1),
}
"""Samples and rounds of each shape."""


@dataclass(frozen=True)
class Method:
    """One way of going over the samples. run: goes over all of them. samples: how many."""

    run: Callable[[], object]
    samples: int


def main() -> None:
    """Measure, print the table and write it as JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    one = subject_and_samples(options.shape, options.samples, device, options.layers)
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(one, options, Path(scratch))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines(result)))


def measure(one: Subjects, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return all measurements and checks of a subject. scratch: a folder for the artifacts."""
    settings = CaptureSettings(top_n=TOP_N, batch_size=options.batch_size)
    speeds, merge_s, written = _time(one, options, settings, scratch)
    seconds = {
        name: [count / speed for speed in values] for name, (count, values) in speeds.items()
    }
    subject = one.subject
    neurons = len(decoder_layers(subject)) * neurons_per_layer(subject)
    activations = neurons * sum(len(encoded.input_ids) for _, encoded in one.encoded)
    with plain_torch():
        plain_s = _seconds(lambda: capture_all(subject, one.encoded, options.batch_size))
    median = {name: statistics.median(values) for name, values in seconds.items()}

    def ratio(slow: Callable[[int], float], fast: Callable[[int], float]) -> float:
        rounds = range(options.rounds)
        return round(statistics.median(slow(at) / fast(at) for at in rounds), 3)

    return {
        "machine": _machine(subject.device),
        "backend": observe_backend(subject.device, subject.model.dtype),
        "torch": torch.__version__,
        "shape": options.shape,
        "neurons": neurons,
        "top_n": TOP_N,
        "samples": options.samples,
        "tokens_per_sample": round(activations / neurons / len(one.encoded), 1),
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "samples_per_s": {
            name: {
                "min": round(min(values), 2),
                "median": round(statistics.median(values), 2),
                "max": round(max(values), 2),
            }
            for name, (_, values) in speeds.items()
        },
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "merge_s": round(merge_s, 3),
        "written_mb": {name: round(size / 1e6, 2) for name, size in written.items()},
        "time_stage_over_bare": ratio(
            lambda at: seconds["stage"][at], lambda at: seconds["bare"][at]
        ),
        "target_stage_over_bare": TARGETS[subject.device.type],
        # The stage's own forward and observation: what it does without writing and merging.
        "time_stage_over_observed": ratio(
            lambda at: seconds["stage"][at],
            lambda at: seconds["bare"][at] + seconds["kernel"][at] - seconds["forward"][at],
        ),
        "target_stage_over_observed": OBSERVED_TARGET,
        "time_kernel_over_forward": ratio(
            lambda at: seconds["kernel"][at], lambda at: seconds["forward"][at]
        ),
        "observing_ns": round((median["kernel"] - median["forward"]) / activations * 1e9, 3),
        "target_observing_ns": NS_TARGET,
        "plain_torch_ns": round((plain_s - median["forward"]) / activations * 1e9, 3),
        "kernel_difference": kernel_difference(subject),
        "memory": memory(one, settings, scratch / "memory"),
        "target_memory_gb": MEMORY_TARGET_GB,
        "batch_sizes": batch_differences(one, settings, scratch / "batches"),
    } | (
        {
            "time_usual_over_stage": ratio(
                lambda at: seconds["usual"][at] / speeds["usual"][0],
                lambda at: seconds["stage"][at] / speeds["stage"][0],
            ),
            "target_usual_over_stage": BASELINE_TARGET,
        }
        if "usual" in seconds
        else {}
    )


def _time(
    one: Subjects, options: argparse.Namespace, settings: CaptureSettings, scratch: Path
) -> tuple[dict[str, tuple[int, list[float]]], float, dict[str, int]]:
    """Return the number of samples and the samples/s of each round by method, the seconds of the
    last merge, and the bytes that the stage wrote."""
    subject, samples = one.subject, longest_first(one.encoded)
    subset = samples[:: max(1, min(BASELINE_SHARE, len(samples)))]
    # The share of samples in the top N is the same as for all samples.
    subset_top_n = max(1, TOP_N * len(subset) // len(samples))
    merge_s: list[float] = []
    written: dict[str, int] = {}

    def stage() -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            merge_s.append(capture_stage(one, settings, Path(folder)))
            written.update(folder_bytes(Path(folder)))

    methods = {
        "forward": Method(lambda: _bare(subject, iter(samples), options.batch_size), len(samples)),
        "kernel": Method(lambda: capture_all(subject, samples, options.batch_size), len(samples)),
        "bare": Method(
            lambda: _bare(subject, prepared_samples(one, settings), options.batch_size),
            len(samples),
        ),
        "stage": Method(stage, len(samples)),
    }
    if options.shape == "bundled":
        methods["usual"] = Method(
            lambda: capture_baseline(subject, subset, subset_top_n), len(subset)
        )
    speeds: dict[str, tuple[int, list[float]]] = {
        name: (method.samples, []) for name, method in methods.items()
    }
    for number in range(options.rounds + 1):
        for name, method in methods.items():
            speed = method.samples / _seconds(method.run)
            if number:  # The first round warms up.
                speeds[name][1].append(speed)
    return speeds, merge_s[-1], written


def capture_all(
    subject: Subject, samples: Samples, batch_size: int, top_n: int = TOP_N
) -> dict[int, LayerRecord]:
    """Capture all layers."""
    layers = tuple(range(len(decoder_layers(subject))))
    return capture(subject, lambda: samples, RecordSpec(layers, "gate", top_n), batch_size)


def _bare(subject: Subject, samples: Iterator, batch_size: int) -> None:
    with torch.inference_mode():
        for batch in batches(samples, batch_size):
            forward_body(subject, batch.to(subject.device).inputs)


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result as lines for a reader."""
    yield (
        f"{result['shape']}, {result['neurons']:,} neurons, {result['samples']} samples of "
        f"{result['tokens_per_sample']} tokens, on {result['machine']}, "
        f"observe backend: {result['backend']}"
    )
    for name, speed in result["samples_per_s"].items():
        yield f"  {name:<8} {speed['median']:>9,.1f} samples/s  ({speed['min']} to {speed['max']})"
    yield f"  of the stage, the merge takes {result['merge_s']} s"
    written = ", ".join(f"{name} {size} MB" for name, size in result["written_mb"].items())
    yield f"  the stage writes {written}"
    ratios = {
        "stage over bare": "time_stage_over_bare",
        "stage over its forward and observation": "time_stage_over_observed",
    }
    for words, key in ratios.items():
        target = result[key.replace("time", "target", 1)]
        yield f"  time of {words}: {result[key]} (target: at most {target})"
    yield f"  time of kernel over forward: {result['time_kernel_over_forward']}"
    if "time_usual_over_stage" in result:
        usual, target = result["time_usual_over_stage"], result["target_usual_over_stage"]
        yield f"  time of usual over stage: {usual} (target: at least {target})"
    yield (
        f"  observing: {result['observing_ns']} ns an activation (target: at most "
        f"{result['target_observing_ns']} on one core); plain torch: {result['plain_torch_ns']} ns"
    )
    yield f"  kernel against plain torch: {result['kernel_difference'] or 'the same rows'}"
    sizes = ", ".join(f"{name} {value}" for name, value in result["memory"].items())
    yield f"  memory: {sizes}"
    if result["shape"] == "llava-1.5-7b":
        yield f"  target of memory next to the weights: at most {result['target_memory_gb']} GB"
    for size, difference in result["batch_sizes"].items():
        found = ", ".join(f"{name} {value}" for name, value in difference.items())
        yield f"  batches of {size} against batches of 1: {found}"


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _seconds(method: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    method()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare capture with the bare forward pass.")
    parser.add_argument("--shape", choices=SHAPES, default="bundled")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--layers", type=int, help="of the shapes with random weights")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("bench/capture.json"))
    options = parser.parse_args()
    samples, rounds = _DEFAULTS[options.shape]
    options.samples = options.samples or samples
    options.rounds = options.rounds or rounds
    return options


if __name__ == "__main__":
    main()
