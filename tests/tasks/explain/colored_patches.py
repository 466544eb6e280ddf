"""Gray pictures with one colored patch each, and neurons that like a color, a word, or both."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import OpenedImage, SampleError

GRID = 6
SIDE = 120
COLORS = {"red": (214, 36, 36), "blue": (40, 70, 215), "green": (40, 150, 60)}
TOKENS = ("A", " {color}", " circle", " on", " gray", ".")
SCALE = 4.0


@dataclass
class Album:
    """A source of gray pictures, each with one colored patch that moves from one to the next."""

    lost: set[str] = field(default_factory=set)
    opened: int = 0

    def open_image(self, image: str) -> OpenedImage:
        if image in self.lost:
            raise SampleError("missing", f"no such file: {image}")
        self.opened += 1
        number, color = image.split()
        picture = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        side = SIDE // GRID
        top, left = (side * place for place in patch_of(int(number)))
        picture.paste(COLORS[color], (left, top, left + side, top + side))
        return OpenedImage(picture, "")


def patch_of(number: int) -> tuple[int, int]:
    return number % GRID, (2 * number + 1) % GRID


def catalog(
    count: int = 10, source: Album | None = None, tokens: tuple[str, ...] = TOKENS
) -> Catalog:
    samples = {}
    for number in range(count):
        color = list(COLORS)[number % len(COLORS)]
        words = tuple(token.format(color=color) for token in tokens)
        samples[number] = Sample(
            sample_id=number,
            source_id=str(number),
            images=(f"{number} {color}",),
            text="".join(words),
            tokens=words,
            regions=(Region(0, GRID, GRID, 0.0, 0.0, float(SIDE), float(SIDE)),),
            width=SIDE,
            height=SIDE,
        )
    return Catalog(samples, source=source or Album())  # type: ignore[arg-type]


def likes(kind: str, color: str = "red", neuron: int = 0) -> Evidence:
    """A neuron that fires on the patch of a color, on the word "circle", or on both."""
    seen = []
    first = list(COLORS).index(color)
    for number in range(first, 10, len(COLORS)):
        visual = np.zeros((GRID, GRID), dtype=np.float32)
        text = np.full(len(TOKENS), -0.2, dtype=np.float32)
        if kind in ("visual", "multi-modal"):
            visual[patch_of(number)] = SCALE * 0.9
        if kind in ("text", "multi-modal"):
            text[TOKENS.index(" circle")] = SCALE
        seen.append(ActivationRecord(number, visual.ravel(), text))
    return Evidence(0, neuron, kind, SCALE, tuple(seen), ())
