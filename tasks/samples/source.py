"""What an image-text source is, whatever it reads from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Record:
    """Images with their text, as the dataset lists them; no image is opened yet.

    images: references that the source can open, mostly one; none for a sample of text only.
    """

    source_id: str
    images: tuple[str, ...]
    text: str

    @property
    def image(self) -> str:
        """The first image; "" where there is none."""
        return self.images[0] if self.images else ""


@dataclass(frozen=True)
class OpenedImage:
    """An upright RGB image and the SHA-256 of the bytes (or drawn pixels) that it came from."""

    pixels: Image.Image
    sha256: str


@dataclass(frozen=True)
class Concept:
    """Something that is truly in an image: where it is, and the words that name it.

    mask: uint8 [24, 24], coverage of each cell of a grid over the whole image, 255 = all of it.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    mask: np.ndarray


class BadSample(Exception):
    """A sample that cannot be used; `status` is one of the `samples` table's statuses."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)  # Both, for a worker's exception is built anew here.
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class SourceError(Exception):
    """The dataset as a whole cannot be read; the message names the file, the field, the remedy."""


class Source(Protocol):
    """An image-text dataset.

    Implementations are frozen dataclasses of their settings, and subclasses of this class. So a
    config can name them, and they can be hashed and sent to workers.
    """

    @property
    def title(self) -> str:
        """The dataset's name, without its path."""

    def records(self) -> Iterable[Record]:
        """List the dataset in its own order without opening an image. Raises SourceError."""

    def open_image(self, image: str) -> OpenedImage:
        """Open a record's image. Raises BadSample. Called on workers."""

    def probe(self) -> str:
        """Return a cheap digest that changes whenever the dataset may have changed."""

    def concepts(self, image: str) -> list[Concept]:
        """Return the ground truth of an image; empty if the source has none."""
        return []
