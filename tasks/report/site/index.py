"""Write the site's page, scripts, style and index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts import TESTED_TYPES, TYPES
from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES
from neuron_atlas.tasks.artifacts.histogram import bin_edges
from neuron_atlas.tasks.report.controls import CONTROL_TERMS
from neuron_atlas.tasks.report.glossary import GLOSSARY, READING
from neuron_atlas.tasks.report.pages import stylesheet, template_environment
from neuron_atlas.tasks.report.palette import heat_colors
from neuron_atlas.tasks.report.settings import About
from neuron_atlas.tasks.report.site.columns import NO_NUMBER, OUTCOMES, STEPS, ScorePairs
from neuron_atlas.tasks.report.site.layout import CHUNK, PER_FOLDER, SAMPLE_CHUNK, data_file
from neuron_atlas.tasks.report.site.script import write_atomically, write_script
from neuron_atlas.tasks.report.site.texts import COUNT, NO_WORD
from neuron_atlas.tasks.report.verdict import VERDICTS
from neuron_atlas.tasks.report.wording import TYPE_MEANINGS

SCRIPTS = (
    "loading",
    "elements",
    "numbers",
    "columns",
    "route",
    "drawing",
    "facets",
    "controls",
    "table",
    "exemplars",
    "explanations",
    "neuron",
    "main",
)
"""In loading order: each script uses those before it."""
_APP = Path(__file__).parent / "app"


def write_index(
    site: Path,
    layers: Sequence[Mapping[str, Any]],
    pairs: ScorePairs,
    about: About,
    title: str,
) -> None:
    """Write index.html, app/ and data/index.js. layers: results of `write_columns`."""
    tested = any(layer["tested"] for layer in layers)
    seen = {outcome for layer in layers for outcome in layer["outcomes"]}
    write_script(
        site / data_file("index"),
        "index",
        {
            "title": title,
            "subject": about.subject,
            "dataset": about.dataset,
            "fingerprint": about.fingerprint,
            "layers": list(layers),
            "texts": COUNT if layers and layers[0]["texts"] else 0,
            "no_word": NO_WORD,
            "extra": layers[0]["extra"] if layers else [],
            "causal_types": list(CAUSAL_TYPES),
            "types": list(TYPES),
            "meanings": TYPE_MEANINGS,
            "tested_types": list(TESTED_TYPES),
            "rules": ["paper", "tested"] if tested else ["paper"],
            "explainers": list(pairs.explainers),
            "pairs": [list(pair) for pair in pairs.pairs],
            "level": pairs.level,
            "verdicts": list(VERDICTS),
            "control_terms": list(CONTROL_TERMS.values()),
            "glossary": GLOSSARY,
            "reading": READING,
            "outcomes": list(OUTCOMES),
            "seen_outcomes": [one for one in OUTCOMES if one in seen],
            "steps": STEPS,
            "no_number": NO_NUMBER,
            "chunk": CHUNK,
            "sample_chunk": SAMPLE_CHUNK,
            "per_folder": PER_FOLDER,
            "edges": [float(edge) for edge in bin_edges()[1:]],
            "heat": heat_colors(np.linspace(0, 1, 256)).tolist(),
        },
    )
    template = template_environment("neuron_atlas.tasks.report.site", "app").get_template(
        "index.html"
    )
    page = template.render(title=title, scripts=SCRIPTS)
    write_atomically(site / "index.html", page.encode())
    for name in SCRIPTS:
        write_atomically(site / "app" / f"{name}.js", (_APP / f"{name}.js").read_bytes())
    style = "\n".join([stylesheet(), (_APP / "site.css").read_text(encoding="utf-8")])
    write_atomically(site / "app" / "site.css", style.encode())
