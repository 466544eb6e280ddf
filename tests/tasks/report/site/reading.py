"""Reads a written site back, as a browser would."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.made_up.atlas import MadeUp
from neuron_atlas.tasks.report.settings import About, SiteSettings
from neuron_atlas.tasks.report.site.site import write_site

ABOUT = About(subject="llava", dataset="painted", fingerprint="9f2c01", facts=())


def write(made: MadeUp, site: Path, title: str = "Painted", **settings: int) -> Path:
    write_site(
        site, made.layers, made.samples, made.aggregates, SiteSettings(**settings), ABOUT, title,
        made.top_n,
    )  # fmt: skip
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
