"""How much capture costs beside the bare forward pass, and beside the usual way of doing it.

    python -m bench.capture [--samples 256] [--rounds 5] [--out bench/capture.json]

Three ways over the same samples, interleaved in one process: (a) the forward pass alone, (b)
capture with traces, (c) the usual way: one sample at a time, activations copied to the host, a
heap for every neuron, and a second pass for the traces of the winners.
"""

from __future__ import annotations

import argparse
import heapq
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tasks.capture.recorder import LayerRecorder, Layout

from tasks.capture.capture import batches, capture, forward
from tasks.samples.scenes import Scenes
from tasks.subject.encode import TEMPLATE, Encoded, encode
from tasks.subject.hook_points import decoder_layers, observing
from tasks.subject.load import Subject, load_subject
from tasks.subject.settings import SubjectSettings

BUNDLED = Path(__file__).parent.parent / "infra" / "subject" / "llava-scenes"
TOP_N = 50
USUAL_SHARE = 16
"""The usual way is so slow that it is given one in this many of the samples."""

Samples = list[tuple[int, Encoded]]


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Capture beside the bare forward pass.")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("bench/capture.json"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    subject = load_subject(SubjectSettings(model=str(BUNDLED)), device)
    samples = scene_samples(subject, options.samples)
    few = samples[: max(1, len(samples) // USUAL_SHARE)]
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "forward": (lambda: _bare(subject, samples, options.batch_size), len(samples)),
        "capture": (lambda: capture_all(subject, samples, options.batch_size), len(samples)),
        "usual": (lambda: usual_way(subject, few), len(few)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, (way, count) in ways.items():
            speeds[name].append(count / _seconds(way))
    # The first round warms up.
    speeds = {name: values[1:] for name, values in speeds.items()}
    result = _result(speeds, device, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _result(
    speeds: dict[str, list[float]], device: str, options: argparse.Namespace
) -> dict[str, object]:
    def ratio(slow: str, fast: str) -> float:
        pairs = zip(speeds[fast], speeds[slow], strict=True)
        return round(statistics.median(quick / late for quick, late in pairs), 3)

    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
        "torch": torch.__version__,
        "samples": options.samples,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "samples_per_s": {
            name: {
                "min": round(min(values), 1),
                "median": round(statistics.median(values), 1),
                "max": round(max(values), 1),
            }
            for name, values in speeds.items()
        },
        "time_capture_over_forward": ratio("capture", "forward"),
        "time_usual_over_capture": ratio("usual", "capture"),
    }


def scene_samples(subject: Subject, count: int) -> Samples:
    """Drawn scenes with their true descriptions, encoded."""
    scenes = Scenes(count=count, seed=77)
    return [
        (place, encode(subject, [scenes.open_image(record.image).pixels], record.text))
        for place, record in enumerate(scenes.records())
    ]


def _bare(subject: Subject, samples: Samples, batch_size: int) -> None:
    with torch.inference_mode():
        for batch in batches(samples, batch_size, subject.device):
            forward(subject, batch)


def capture_all(
    subject: Subject, samples: Samples, batch_size: int, top_n: int = TOP_N
) -> dict[int, LayerRecorder]:
    """The program's capture, of all layers."""
    layout = Layout(
        max(encoded.n_visual for _, encoded in samples),
        max(encoded.n_text for _, encoded in samples),
    )
    return capture(
        subject,
        samples,
        layers=range(len(decoder_layers(subject))),
        hook_point="gate",
        top_n=top_n,
        layout=layout,
        random_ids=[],
        batch_size=batch_size,
    )


def usual_way(
    subject: Subject, samples: Samples, top_n: int = TOP_N
) -> dict[tuple[int, int, int], np.ndarray]:
    """Traces by (layer, neuron, sample_id): peaks by a heap a neuron on the host, then every
    winner's trace in a second pass."""
    layers = range(len(decoder_layers(subject)))
    heaps: dict[int, list[list[tuple[float, int]]]] = {}
    for sample_id, activations in _one_by_one(subject, samples, layers):
        for layer, values in activations.items():
            mine = heaps.setdefault(layer, [[] for _ in range(values.shape[1])])
            for neuron, peak in enumerate(values.max(0).tolist()):
                if len(mine[neuron]) < top_n:
                    heapq.heappush(mine[neuron], (peak, -sample_id))
                else:
                    heapq.heappushpop(mine[neuron], (peak, -sample_id))
    wanted: dict[int, list[tuple[int, int]]] = {}
    for layer, mine in heaps.items():
        for neuron, heap in enumerate(mine):
            for _, negative_id in heap:
                wanted.setdefault(-negative_id, []).append((layer, neuron))
    traces: dict[tuple[int, int, int], np.ndarray] = {}
    for sample_id, activations in _one_by_one(subject, samples, layers):
        for layer, neuron in wanted.get(sample_id, []):
            traces[layer, neuron, sample_id] = activations[layer][:, neuron].astype(np.float16)
    return traces


def _one_by_one(
    subject: Subject, samples: Samples, layers: range
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    found: dict[int, torch.Tensor] = {}
    with observing(subject, layers, "gate", found.__setitem__), torch.inference_mode():
        for sample_id, encoded in samples:
            (batch,) = batches([(sample_id, encoded)], 1, subject.device)
            forward(subject, batch)
            keep = (encoded.roles != TEMPLATE).numpy()
            yield (
                sample_id,
                {
                    layer: values[0].cpu().numpy()[: len(keep)][keep]
                    for layer, values in found.items()
                },
            )


def _seconds(way: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
