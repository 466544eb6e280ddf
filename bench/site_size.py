"""How large a site becomes, from the shape of what was run."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_atlas.tasks.report.settings import SiteSettings
from neuron_atlas.tasks.report.site.texts import COUNT

_BASE64 = 4 / 3
_TABLE_BYTES = 4 + 1 + 4 + 4 + 1 + (4 + 1) + 2 * COUNT
_SCORE_BYTES = 5 * 2 + 4 + (4 + 1)
"""What the columns hold of a neuron: see columns.py, effect_columns.py and texts.py."""
_FACTS = 1050
"""Characters of a neuron's numbers: histograms, moments, words, exemplars without heat maps; those
of the bundled subject's over 1,000 scenes have as many on average."""
_EXPLANATION = 2020
"""The same of one explainer's words, scores and held-out samples."""


@dataclass(frozen=True)
class Shape:
    """What is shown. The defaults are LLaVA-1.5-7B's over detail_23k, which is one explainer's.

    visual, text: tokens of a sample. words: characters of an explanation. image: bytes of an image
    at the site's size and quality; photographs of COCO have some 20 kB at the defaults.
    """

    neurons: int = 352_256
    explained: int = 1280
    explainers: int = 1
    samples: int = 23_000
    visual: int = 576
    text: int = 150
    words: int = 150
    image: int = 20_000


def expected_bytes(shape: Shape, settings: SiteSettings) -> dict[str, int]:
    """Bytes by kind of file, and of all: what heat maps take is exact, of words and numbers what
    they have on average."""
    trace = (shape.visual + shape.text) * _BASE64
    others = shape.neurons - shape.explained
    with_heat = shape.explained * settings.exemplars + others * settings.exemplars_of_unexplained
    held_out = shape.explained * settings.held_out * (1 + shape.explainers)
    said = shape.explained * shape.explainers
    kinds = {
        "table": shape.neurons * (_TABLE_BYTES + _SCORE_BYTES * shape.explainers) * _BASE64,
        "words": said * shape.words,
        "traces": (with_heat + held_out) * trace,
        "facts": shape.neurons * _FACTS + said * _EXPLANATION,
        "samples": shape.samples * shape.text * 8,
        "images": shape.samples * shape.image,
    }
    whole = {name: round(count) for name, count in kinds.items()}
    return whole | {"all": sum(whole.values())}
