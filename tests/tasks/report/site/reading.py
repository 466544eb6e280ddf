"""Writes a site in one process, and reads it back as a browser would."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.synthetic.atlas import SyntheticAtlas
from neuron_atlas.tasks.report.settings import About, SiteSettings
from neuron_atlas.tasks.report.site.columns import list_score_pairs, write_columns
from neuron_atlas.tasks.report.site.index import write_index
from neuron_atlas.tasks.report.site.layout import split_layer
from neuron_atlas.tasks.report.site.neurons import write_neurons
from neuron_atlas.tasks.report.site.samples import split_samples, write_samples

ABOUT = About(subject="llava", dataset="painted", fingerprint="9f2c01", facts=())


def write(
    made: SyntheticAtlas,
    site: Path,
    title: str = "Painted",
    texts: Sequence[Path] = (),
    **settings: int,
) -> Path:
    """Write a whole site, step by step as the report stage spreads it over many."""
    asked = SiteSettings(**settings)
    pairs = list_score_pairs(
        [path for files in made.layers for path in files["explanations"]],
        [path for files in made.layers for path in files["scores"]],
        made.aggregates,
    )
    rows = [write_columns(site, files, pairs, texts) for files in made.layers]
    shown: set[int] = set()
    for files in made.layers:
        for part in split_layer(files):
            shown |= write_neurons(site, part, files, made.samples, asked, pairs.level)
    for batch in split_samples(shown):
        write_samples(site, batch, made.samples, asked)
    write_index(site, rows, pairs, ABOUT, title)
    return site


def value(site: Path, key: str) -> Any:
    """What the script of a key hands over; fails if it is anything but that one call."""
    script = (site / "data" / f"{key}.js").read_text(encoding="ascii")
    assert script.startswith("atlas(")
    assert script.endswith(");\n")
    named, handed = json.loads(f"[{script.removeprefix('atlas(')[:-3]}]")
    assert named == key
    return handed


def numbers(packed: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), dtype)


def neuron(site: Path, layer: int, index: int) -> dict[str, Any]:
    chunk = value(site, "index")["chunk"]
    return value(site, f"neurons/{layer}/{index // chunk}")[index % chunk]
