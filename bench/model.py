"""Measure every stage on a model with as many neurons as LLaVA-1.5-7B: seconds, memory, bytes.

    python -m bench.model [--layers 32] [--samples 400] [--explained 1280] [--cpus 2]
                          [--program CHECKOUT] [--compare OLD.json] [-- SETTING=VALUE ...]

Runs the whole program in a fresh folder, as a user does: 32 layers x 11,008 neurons of hidden size
64 with random weights, drawn scenes of about 100 tokens, texts from the dataset, explanations by
`dissect`. It reads only what the program prints and writes, so `--program` can measure another
checkout, and `--compare` prints the ratios to an earlier result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.watch import Watch, watching
from bench.wide import HIDDEN, LAYERS, NEURONS, save_wide_subject

CHECKOUT = Path(__file__).parent.parent
_GB, _MB = 1e9, 1e6
_COLUMNS = ("seconds", "largest_process_gb", "all_processes_gb", "written_mb")


def main() -> None:
    """Measure, print the table and write it as JSON."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        subject = scratch / "subject"
        save_wide_subject(subject, options.layers, options.neurons, options.hidden)
        result = measure(options, subject, scratch / "out")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))
    if options.compare is not None:
        old = json.loads(options.compare.read_text(encoding="utf-8"))
        print(f"\n{comparison(result, old)}")


def measure(options: argparse.Namespace, subject: Path, out: Path) -> dict[str, Any]:
    """Run the program once and return the measurements of its stages. Exit if the run fails."""
    program = options.program.resolve()
    command = [sys.executable, "-m", "neuron_atlas.workflows.atlas"]
    command += settings_of_run(program, options, subject, out)
    environment = os.environ | {"PYTHONPATH": str(program / "src")}
    begun = time.time()
    running = subprocess.Popen(command, env=environment, cwd=out.parent)
    try:
        with watching(running.pid, out / "artifacts") as watch:
            status = running.wait()
    finally:
        running.terminate()
    ended = time.time()
    if status:
        sys.exit(f"bench.model: the run failed with exit status {status}")
    return {
        "program": _commit(program),
        "machine": f"{platform.machine()}, {options.cpus} cores",
        "layers": options.layers,
        "neurons_per_layer": options.neurons,
        "hidden_size": options.hidden,
        "samples": options.samples,
        "explained": options.explained,
        "settings": options.settings,
        "seconds": round(ended - begun, 1),
        "stages": stages(out / "artifacts", watch, begun),
    }


def settings_of_run(
    program: Path, options: argparse.Namespace, subject: Path, out: Path
) -> list[str]:
    """Return the settings of the run, in the names of this program's version."""
    config = (program / "conf" / "atlas.yaml").read_text(encoding="utf-8")
    key = "output.dir" if "\noutput:" in config else "out"
    return [
        f"{key}={out}",
        "subject=pretrained",
        f"subject.model={subject}",
        "subject.dtype=float32",
        "data=scenes",
        f"data.count={options.samples}",
        "describe=given",
        "explain=dissect",
        f"explain.neurons.count={options.explained}",
        "simulate=concept",
        f"cluster.cpus={options.cpus}",
        *options.settings,
    ]


def stages(artifacts: Path, watch: Watch, begun: float) -> dict[str, dict[str, Any]]:
    """Return the measurements of each stage, in the order of the run.

    A stage lasts from the manifest of the stage before it to its own manifest; the first one
    includes the start of the program. artifacts: the folder of a finished run's artifacts, one
    folder per stage and fingerprint.
    """
    manifests = sorted(artifacts.glob("*/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    measured = {}
    start = begun
    for path in manifests:
        stop = path.stat().st_mtime
        stage = path.parent.parent.name
        largest, total = watch.peak(start, stop)
        written = _written(watch, stage)
        measured[stage] = {
            "seconds": round(stop - start, 2),
            "steps": json.loads(path.read_text(encoding="utf-8"))["seconds"],
            "largest_process_gb": round(largest / _GB, 2),
            "all_processes_gb": round(total / _GB, 2),
            "written_mb": round(sum(written.values()), 1),
            "artifacts_mb": {name: round(size, 1) for name, size in sorted(written.items())},
        }
        start = stop
    return measured


def _written(watch: Watch, stage: str) -> dict[str, float]:
    """Return the megabytes that a stage wrote, by artifact; temporary ones have their folder's
    name in front."""
    written: dict[str, float] = {}
    for (name, _), size in watch.files.items():
        owner, _, *rest = name.split("/")
        if owner == stage and rest[-1:] != ["manifest.json"]:
            label = _artifact(rest)
            written[label] = written.get(label, 0.0) + size / _MB
    return written


def _artifact(parts: Sequence[str]) -> str:
    table = parts[-1].split("-")[0].split(".")[0]
    if len(parts) == 1:
        return table
    is_table = parts[-1].endswith((".parquet", ".arrow"))
    return f"{parts[0]}/{table}" if is_table else parts[0]


def table(result: Mapping[str, Any]) -> str:
    """Return the measurements as lines: a stage with its sums, then its artifacts."""
    lines = [
        f"{result['layers']} x {result['neurons_per_layer']:,} neurons of hidden size "
        f"{result['hidden_size']}, {result['samples']} samples, {result['explained']:,} explained; "
        f"{result['machine']}; program {result['program']}",
        f"{'stage':<10}{'seconds':>10}{'largest GB':>12}{'all GB':>10}{'written MB':>12}   steps",
    ]
    for name, stage in result["stages"].items():
        steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in stage["steps"].items())
        lines.append(
            f"{name:<10}{stage['seconds']:>10.1f}{stage['largest_process_gb']:>12.2f}"
            f"{stage['all_processes_gb']:>10.2f}{stage['written_mb']:>12.1f}   {steps}"
        )
        lines += [
            f"{'':<10}{'':>32}{size:>12.1f}   {artifact}"
            for artifact, size in stage["artifacts_mb"].items()
        ]
    lines.append(f"{'run':<10}{result['seconds']:>10.1f}")
    return "\n".join(lines)


def comparison(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Return the ratios new / old of each stage that both runs have, as lines."""
    lines = [
        f"ratios {new['program']} / {old['program']} (below 1 is better)",
        f"{'stage':<10}{'seconds':>10}{'largest GB':>12}{'all GB':>10}{'written MB':>12}",
    ]
    different = [
        name
        for name in (
            "machine",
            "layers",
            "neurons_per_layer",
            "hidden_size",
            "samples",
            "explained",
        )
        if new[name] != old[name]
    ]
    if different:
        lines.insert(0, f"warning: the runs differ in {', '.join(different)}")
    names = list(dict.fromkeys([*old["stages"], *new["stages"]]))
    for name in names:
        pair = [run["stages"].get(name) for run in (new, old)]
        ratios = [_ratio(*(stage and stage[column] for stage in pair)) for column in _COLUMNS]
        lines.append("".join([f"{name:<10}", *map(str.rjust, ratios, (10, 12, 10, 12))]))
    lines.append(f"{'run':<10}{_ratio(new['seconds'], old['seconds']):>10}")
    return "\n".join(lines)


def _ratio(new: float | None, old: float | None) -> str:
    if new is None or old is None:
        return "-"
    return f"{new / old:.3f}" if old else "-"


def _commit(program: Path) -> str:
    """Return the short commit of a checkout, with + if files differ from it; or its folder."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return program.name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure every stage on a model of 352,256 neurons."
    )
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--neurons", type=int, default=NEURONS, help="per layer")
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="hidden size")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--explained", type=int, default=1280, help="neurons to explain")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--program", type=Path, default=CHECKOUT, help="checkout to measure")
    parser.add_argument("--compare", type=Path, help="JSON of an earlier run")
    parser.add_argument("--scratch", type=Path, help="folder for the run; deleted at the end")
    parser.add_argument("--out", type=Path, default=Path("bench/model.json"))
    parser.add_argument("settings", nargs="*", help="further settings of the program")
    return parser.parse_args()


if __name__ == "__main__":
    main()
