"""Compare capture with the bare forward pass and with the usual implementation.

    python -m bench.capture [--shape bundled|llava-1.5-7b] [--samples 1024] [--rounds 5]

Runs three methods over the same samples, interleaved in one process: the forward pass alone;
capture, with exemplars, moments and histograms of all layers; and the usual implementation (see
bench/baseline.py). Needs only torch, transformers and pyarrow, so it runs on any GPU machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.baseline import capture_baseline
from bench.subjects import SHAPES, Samples, subject_and_samples
from neuron_atlas.tasks.capture.capture import RecordSpec, capture
from neuron_atlas.tasks.capture.observe import observe_backend
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer
from neuron_atlas.tasks.subject.load import Subject

TOP_N = 50
BASELINE_SHARE = 64
"""The usual implementation is slow, so it gets one in this many samples."""

TARGETS = {"cpu": 1.25, "cuda": 1.10}
BASELINE_TARGET = 10.0


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare capture with the bare forward pass.")
    parser.add_argument("--shape", choices=SHAPES, default="bundled")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("bench/capture.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    subject, samples = subject_and_samples(options.shape, options.samples, device)
    samples.sort(key=lambda sample: len(sample[1].input_ids), reverse=True)
    subset = samples[:: max(1, min(BASELINE_SHARE, len(samples)))]
    # The share of samples in the top N is the same as for all samples.
    subset_top_n = max(1, TOP_N * len(subset) // len(samples))
    methods: dict[str, tuple[Callable[[], object], int]] = {
        "forward": (lambda: _bare(subject, samples, options.batch_size), len(samples)),
        "capture": (lambda: capture_all(subject, samples, options.batch_size), len(samples)),
        "usual": (lambda: capture_baseline(subject, subset, subset_top_n), len(subset)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(options.rounds + 1):
        for name, (method, count) in methods.items():
            speeds[name].append(count / _seconds(method))
    # The first round warms up.
    speeds = {name: values[1:] for name, values in speeds.items()}
    result = _result(speeds, subject, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _print_table(result)


def capture_all(
    subject: Subject, samples: Samples, batch_size: int, top_n: int = TOP_N
) -> dict[int, LayerRecord]:
    """Capture all layers."""
    layers = tuple(range(len(decoder_layers(subject))))
    return capture(subject, lambda: samples, RecordSpec(layers, "gate", top_n), batch_size)


def _bare(subject: Subject, samples: Samples, batch_size: int) -> None:
    with torch.inference_mode():
        for batch in batches(samples, batch_size):
            forward_body(subject, batch.to(subject.device).inputs)


def _result(
    speeds: dict[str, list[float]], subject: Subject, options: argparse.Namespace
) -> dict[str, object]:
    def ratio(slow: str, fast: str) -> float:
        pairs = zip(speeds[fast], speeds[slow], strict=True)
        return round(statistics.median(high / low for high, low in pairs), 3)

    return {
        "machine": _machine(subject.device),
        "backend": observe_backend(subject.device, subject.model.dtype),
        "torch": torch.__version__,
        "shape": options.shape,
        "neurons": len(decoder_layers(subject)) * neurons_per_layer(subject),
        "top_n": TOP_N,
        "samples": options.samples,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "samples_per_s": {
            name: {
                "min": round(min(values), 2),
                "median": round(statistics.median(values), 2),
                "max": round(max(values), 2),
            }
            for name, values in speeds.items()
        },
        "time_capture_over_forward": ratio("capture", "forward"),
        "target_capture_over_forward": TARGETS[subject.device.type],
        "time_usual_over_capture": ratio("usual", "capture"),
        "target_usual_over_capture": BASELINE_TARGET,
    }


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _print_table(result: dict) -> None:
    print(
        f"{result['shape']}, {result['neurons']:,} neurons, on {result['machine']}, "
        f"observe backend: {result['backend']}"
    )
    for name, speed in result["samples_per_s"].items():
        print(f"  {name:<8} {speed['median']:>9,.1f} samples/s  ({speed['min']} to {speed['max']})")
    for name, bound in (("capture_over_forward", "at most"), ("usual_over_capture", "at least")):
        ratio, target = result[f"time_{name}"], result[f"target_{name}"]
        print(f"  time of {name.replace('_', ' ')}: {ratio} (target: {bound} {target})")


def _seconds(method: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    method()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
