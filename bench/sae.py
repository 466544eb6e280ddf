"""Compare capturing the latents of a top-k SAE as active latents with capturing them dense.

    python -m bench.sae [--latents 65536] [--k 64] [--samples 64] [--batch-size 16] [--rounds 3]
                        [--out FILE]

Over the bundled subject and drawn scenes, with a random SAE of one layer's output. Each way runs in
a process of its own, which reports its peak memory; the rows of both are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.subjects import Samples, subject_and_samples
from neuron_atlas.tasks.capture import capture as capturing
from neuron_atlas.tasks.capture.capture import RecordSpec
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.subject.hook_points import observing
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.sae.config import SaeConfig
from neuron_atlas.tasks.subject.sae.sae import Sae

WAYS = ("sparse", "dense")
LAYER, TOP_N = 1, 50


def main() -> None:
    """Measure both ways, print them and write them as JSON."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        if options.way:
            print(json.dumps(measure(options, options.way, options.folder)))
            return
        result = {way: json.loads(_in_process(way, Path(scratch)).splitlines()[-1]) for way in WAYS}
        same = compare(*(torch.load(Path(scratch) / f"{way}.pt") for way in WAYS))
    result |= vars(options) | {"out": str(options.out), "same": same, "folder": ""}
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines(result)))


def measure(options: argparse.Namespace, way: str, folder: Path | None) -> dict[str, Any]:
    """Capture all samples in one way; its speed and the growth of peak memory. folder: where its
    record is stored; None for nowhere."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    one = subject_and_samples("bundled", options.samples, device)
    subject = with_random_sae(one.subject, options.latents, options.k)
    recording = RecordSpec((LAYER,), "sae", TOP_N)

    def run(samples: Samples) -> LayerRecord:
        return capturing.capture(subject, lambda: samples, recording, options.batch_size)[LAYER]

    patched = mock.patch.object(capturing, "observing_active", observing)
    record, wall, cpu = None, [], []
    with patched if way == "dense" else nullcontext():
        before = _peak(device)
        run(one.encoded[: options.batch_size])  # Warms up.
        for _ in range(options.rounds):
            record = None  # Its memory is free for the next one.
            start = time.perf_counter(), time.process_time()
            record = run(one.encoded)
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
    memory = _peak(device) - before
    assert record is not None
    if folder is not None:
        torch.save(_by_rank(record), folder / f"{way}.pt")
    return {
        "samples_per_s": round(len(one.encoded) / statistics.median(wall), 2),
        "cpu_s_per_sample": round(statistics.median(cpu) / len(one.encoded), 3),
        "memory_mb": round(memory / 1e6),
        "tokens_per_sample": round(
            sum(len(encoded.input_ids) for _, encoded in one.encoded) / len(one.encoded), 1
        ),
        "device": str(device),
    }


def with_random_sae(subject: Subject, latents: int, k: int) -> Subject:
    """Return the subject with a random top-k SAE of one layer's output."""
    generator = torch.Generator().manual_seed(0)
    width = int(subject.model.config.get_text_config().hidden_size)
    config = SaeConfig("sparsify", Path(), Path(), LAYER, "output", "topk", width, k=k)
    sae = Sae(
        config,
        torch.randn(width, latents, generator=generator).to(subject.device) / width**0.5,
        torch.zeros(latents, device=subject.device),
        torch.zeros(width, device=subject.device),
    )
    return replace(subject, saes={LAYER: sae})


def compare(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the shares of equal values of two records, and the largest difference of a mean."""
    exact = ("keys", "peak_positions", "top", "active", "text_peak_token", "histogram", "positive")
    same = {name: float((first[name] == second[name]).double().mean()) for name in exact}
    return same | {"mean": float((first["mean"] - second["mean"]).abs().max())}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result as lines for a reader."""
    yield (
        f"{result['latents']:,} latents, {result['k']} active at a token, {result['samples']} "
        f"samples of {result['sparse']['tokens_per_sample']} tokens, batches of "
        f"{result['batch_size']}, on {result['sparse']['device']}"
    )
    for way in WAYS:
        one = result[way]
        yield (
            f"  {way:<7} {one['samples_per_s']:>8} samples/s, {one['cpu_s_per_sample']:>6} CPU s a "
            f"sample, {one['memory_mb']:>6} MB more"
        )
    yield f"  shares of equal values: {result['same']}"


def _by_rank(record: LayerRecord) -> dict[str, torch.Tensor]:
    keys, order = record.keys.sort(dim=1, descending=True)
    slots, moments = record.slots, record.statistics
    neuron = torch.arange(len(order), device=order.device)[:, None]
    ranked = {
        "keys": keys,
        "peak_positions": record.peak_positions.gather(1, order),
        "top": slots.top[:, neuron, order].nan_to_num(neginf=-1),
        "active": slots.active[:, neuron, order],
        "text_peak_token": slots.text_peak_token.gather(1, order),
        "histogram": moments.histogram,
        "positive": moments.positive,
        "mean": moments.mean_and_m2()[0],
    }
    return {name: one.cpu() for name, one in ranked.items()}


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_process(way: str, folder: Path) -> str:
    command = [sys.executable, "-m", "bench.sae", *sys.argv[1:], "--way", way]
    command += ["--folder", str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare sparse and dense latents of an SAE.")
    parser.add_argument("--latents", type=int, default=2**16)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/sae.json"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
