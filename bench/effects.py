"""Compare attribution, exact ablation and output tokens with bare forward passes.

    python -m bench.effects [--samples 64] [--rounds 3]

Measures the bundled subject, and layers of the width of LLaVA-1.5-7B with hidden size 64
(`bench.model`'s subject). All passes compute the loss of the descriptions, from samples that are
encoded in advance. Memory is by how much the resident memory of a process grows while the work
runs, each in a process of its own; Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.subjects import Subjects, subject_and_samples
from neuron_atlas.tasks.artifacts.effects import UP_SUMS
from neuron_atlas.tasks.effects import attribution
from neuron_atlas.tasks.effects.ablation import Ablation, loss_changes
from neuron_atlas.tasks.effects.attribution import NeuronScales, attribute
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.effects.output_tokens import output_tokens
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer

ATTRIBUTION_TARGET, ABLATION_TARGET = 3.5, 0.9
_SHAPES: dict[str, tuple[int | None, int]] = {"bundled": (None, 1), "wide": (2, 4)}
"""Shapes to measure, each with its number of layers (None for the shape's own), and by how much
its samples are divided."""
_BATCH = 16
_ABLATED = 30


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare effects with bare forward passes.")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/effects.json"))
    options = parser.parse_args()
    result: dict[str, object] = {
        "samples": options.samples,
        "target_attribution_over_forward": ATTRIBUTION_TARGET,
        "target_ablation_over_forward": ABLATION_TARGET,
    }
    for shape, (layers, divisor) in _SHAPES.items():
        samples = max(1, options.samples // divisor)
        result[shape] = {
            **measure(shape, layers, samples, options.rounds),
            "memory_mb": {
                name: _memory(shape, layers, samples, name)
                for name in ("forward", "attribution", "checkpointed", "output_tokens")
            },
        }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure(shape: str, layers: int | None, samples: int, rounds: int) -> dict[str, float]:
    """Return the speed of each kind of work, the median of some rounds."""
    subjects = subject_and_samples(shape, samples, torch.device("cpu"), layers)
    few = Subjects(subjects.subject, subjects.catalog, subjects.described, subjects.encoded[:4])
    work = {name: _work(subjects, name) for name in ("forward", "attribution", "checkpointed")}
    work["ablation"] = _work(few, "ablation")
    work["output_tokens"] = _work(subjects, "output_tokens")
    # A batch has one row for the sample unchanged.
    rows = (_ABLATED + -(-_ABLATED // (_BATCH - 1))) * len(few.encoded)
    found: dict[str, list[float]] = {}
    for round_number in range(rounds + 1):
        seconds = {name: _seconds(run) for name, run in work.items()}
        if round_number:  # The first round warms up.
            forward = seconds["forward"] / len(subjects.encoded)
            found.setdefault("forward_samples_per_s", []).append(1 / forward)
            for name in ("attribution", "checkpointed"):
                found.setdefault(f"{name}_over_forward", []).append(
                    seconds[name] / seconds["forward"]
                )
            found.setdefault("ablation_rows_over_forward", []).append(
                forward * rows / seconds["ablation"]
            )
            neurons = neurons_per_layer(subjects.subject)
            found.setdefault("output_neurons_per_s", []).append(neurons / seconds["output_tokens"])
    return {name: round(statistics.median(values), 3) for name, values in found.items()}


def _work(subjects: Subjects, name: str) -> Callable[[], object]:
    subject, encoded = subjects.subject, subjects.encoded
    layers, neurons = len(decoder_layers(subject)), neurons_per_layer(subject)
    ordered = sorted(encoded, key=lambda one: len(one[1].input_ids), reverse=True)
    scales = NeuronScales(np.zeros(neurons, np.float32), np.full(neurons, 1.0, np.float32))

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches(iter(ordered), _BATCH):
                text_losses(subject, batch)

    def attributed(checkpoints: bool) -> None:
        usual = attribution.fits_without_checkpoints
        attribution.fits_without_checkpoints = lambda *_: not checkpoints
        try:
            by_layer = dict.fromkeys(range(layers), scales)
            attribute(subject, lambda: iter(ordered), by_layer, "gate", _BATCH)
        finally:
            attribution.fits_without_checkpoints = usual

    def ablated() -> None:
        chosen = np.random.default_rng(0).choice(layers * neurons, _ABLATED, replace=False)
        ablations = [
            Ablation(sample_id, int(one // neurons), int(one % neurons))
            for sample_id, _ in ordered
            for one in chosen
        ]
        loss_changes(subject, ablations, lambda: iter(ordered), "gate", _BATCH)

    def promoted() -> None:
        output_tokens(subject, 0, np.ones((len(UP_SUMS), neurons)), "gate", 10)

    return {
        "forward": forward,
        "attribution": lambda: attributed(False),
        "checkpointed": lambda: attributed(True),
        "ablation": ablated,
        "output_tokens": promoted,
    }[name]


def _memory(shape: str, layers: int | None, samples: int, name: str) -> float:
    """Return the MB by which a fresh process grows while it does some work."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (shape, layers, min(samples, 2 * _BATCH), name))


def _grown(shape: str, layers: int | None, samples: int, name: str) -> float:
    subjects = subject_and_samples(shape, samples, torch.device("cpu"), layers)
    one = Subjects(subjects.subject, subjects.catalog, subjects.described, subjects.encoded[:1])
    _work(one, name)()  # Libraries and buffers that every pass needs.
    Path("/proc/self/clear_refs").write_text("5")  # Sets the peak to what is resident now.
    before = _peak_kb()
    _work(subjects, name)()
    return round((_peak_kb() - before) / 1e3, 1)


def _peak_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (one for one in status.splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1])


def _seconds(method: Callable[[], object]) -> float:
    begun = time.perf_counter()
    method()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
