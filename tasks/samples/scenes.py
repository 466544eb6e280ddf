"""Draw scenes with a ground-truth description and a mask of every concept in it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts import CONCEPT_GRID
from neuron_atlas.tasks.samples.drawing import SHAPES, DrawnShape, coverage, paint
from neuron_atlas.tasks.samples.source import (
    Concept,
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
)

SIZES = {"small": 0.10, "large": 0.17}
COLORS = {
    "red": (214, 36, 36),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 40),
    "green": (40, 150, 60),
    "blue": (40, 70, 215),
    "purple": (135, 45, 170),
    "white": (244, 244, 244),
    "black": (16, 16, 16),
}
BACKGROUNDS = {
    "gray": (128, 128, 128),
    "pink": (246, 176, 196),
    "brown": (122, 78, 44),
    "cyan": (120, 214, 222),
}
# In reading order, like the objects in a description.
POSITIONS = {
    "top left": (0.22, 0.22),
    "top right": (0.78, 0.22),
    "center": (0.50, 0.50),
    "bottom left": (0.22, 0.78),
    "bottom right": (0.78, 0.78),
}
_TWO_OBJECTS_SHARE = 0.75
_POSITION_JITTER = 0.015
_SIZE_JITTER = 0.06
_COLOR_JITTER = 10
_PROBED_SCENES = 16


@dataclass(frozen=True)
class Scenes(Source):
    """Source of `count` drawn scenes of `size` x `size` pixels.

    A scene is one or two objects on a colored background. It depends only on the seed and its
    index, so a larger `count` adds scenes and changes none.
    """

    count: int = 1000
    seed: int = 0
    size: int = 192

    @property
    def title(self) -> str:
        """The number of scenes and the seed."""
        return f"{self.count:,} drawn scenes, seed {self.seed}"

    def records(self) -> Iterable[SampleRecord]:
        """Yield every scene with its ground-truth description, by index."""
        for index in range(self.count):
            yield SampleRecord(
                source_id=f"scene-{self.seed}-{index}",
                images=(f"{self.seed}/{index}",),
                text=_describe(_draw_scene(self.seed, index)),
            )

    def open_image(self, image: str) -> OpenedImage:
        """Draw a scene; its hash covers the pixels and their shape. Raises SampleError."""
        scene = self._scene(image)
        figures = [thing.figure for thing in scene.objects]
        pixels = paint(figures, scene.background_rgb, self.size)
        return OpenedImage(pixels=pixels, sha256=_pixel_hash(pixels))

    def probe(self) -> str:
        """Return a digest of the settings and of the first scenes as this version draws them."""
        digest = hashlib.sha256(repr(self).encode())
        for record, _ in zip(self.records(), range(_PROBED_SCENES), strict=False):
            digest.update(record.text.encode())
            digest.update(self.open_image(record.image).sha256.encode())
        return digest.hexdigest()

    def concepts(self, image: str) -> list[Concept]:
        """Return every concept in the scene's description, with its mask. Raises SampleError.

        The mask of a color, shape, size or position covers all objects that have it. The mask of
        the background covers the area without objects.
        """
        scene = self._scene(image)
        masks: dict[tuple[str, str], np.ndarray] = {}
        covered = np.zeros((CONCEPT_GRID, CONCEPT_GRID), np.uint8)
        for thing in scene.objects:
            mask = coverage(thing.figure, self.size, CONCEPT_GRID)
            covered = _union(covered, mask)
            for kind, name in thing.traits():
                masks[name, kind] = _union(masks.get((name, kind), np.zeros_like(mask)), mask)
        masks[scene.background, "background"] = 255 - covered
        return [
            Concept(name=name, kind=kind, words=tuple(name.split()), mask=mask)
            for (name, kind), mask in masks.items()
        ]

    def _scene(self, image: str) -> "_Scene":
        seed, _, index = image.partition("/")
        if seed != str(self.seed) or not index.isdecimal() or int(index) >= self.count:
            reason = f"{image!r} is not one of the {self.count} scenes of seed {self.seed}"
            raise SampleError("missing", reason)
        return _draw_scene(self.seed, int(index))


@dataclass(frozen=True)
class _Object:
    size: str
    color: str
    position: str
    figure: DrawnShape

    def traits(self) -> Iterator[tuple[str, str]]:
        yield "color", self.color
        yield "shape", self.figure.shape
        yield "size", self.size
        yield "position", self.position


@dataclass(frozen=True)
class _Scene:
    objects: list[_Object]
    background: str
    background_rgb: tuple[int, int, int]


def _draw_scene(seed: int, index: int) -> _Scene:
    rng = np.random.default_rng([seed, index])
    background = _pick(rng, BACKGROUNDS)
    background_rgb = _shade(rng, BACKGROUNDS[background])
    n_objects = 2 if rng.random() < _TWO_OBJECTS_SHARE else 1
    positions = sorted(rng.choice(len(POSITIONS), size=n_objects, replace=False))
    objects = [_draw_object(rng, list(POSITIONS)[position]) for position in positions]
    return _Scene(objects, background, background_rgb)


def _draw_object(rng: np.random.Generator, position: str) -> _Object:
    size, color, shape = _pick(rng, SIZES), _pick(rng, COLORS), _pick(rng, SHAPES)
    dx, dy = rng.uniform(-_POSITION_JITTER, _POSITION_JITTER, size=2)
    x, y = POSITIONS[position]
    radius = SIZES[size] * (1 - rng.uniform(0, _SIZE_JITTER))
    figure = DrawnShape(shape, _shade(rng, COLORS[color]), x + dx, y + dy, radius)
    return _Object(size, color, position, figure)


def _describe(scene: _Scene) -> str:
    objects = " and ".join(
        f"a {thing.size} {thing.color} {thing.figure.shape} at the {thing.position}"
        for thing in scene.objects
    )
    sizes = " and ".join(
        f"the {thing.color} {thing.figure.shape} is {thing.size}" for thing in scene.objects
    )
    return f"There is {objects}. The background is {scene.background}. T{sizes[1:]}."


def _pick(rng: np.random.Generator, names: Iterable[str]) -> str:
    choices = list(names)
    return choices[rng.integers(len(choices))]


def _shade(rng: np.random.Generator, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    jitter = rng.integers(-_COLOR_JITTER, _COLOR_JITTER + 1, size=3)
    red, green, blue = np.clip(np.array(rgb) + jitter, 0, 255).tolist()
    return red, green, blue


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Add the coverage of two figures that do not overlap; their edges may share a cell."""
    return np.minimum(a.astype(np.uint16) + b, 255).astype(np.uint8)


def _pixel_hash(pixels: Image.Image) -> str:
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()
