"""Protocol of an image-text source, and the records and errors that it exchanges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class SampleRecord:
    """One sample as the dataset lists it: images, not opened yet, and their text.

    images: references for `Source.open_image`, usually one; none for a sample without images.
    """

    source_id: str
    images: tuple[str, ...]
    text: str

    @property
    def image(self) -> str:
        """Reference of the first image; "" without images."""
        return self.images[0] if self.images else ""


@dataclass(frozen=True)
class OpenedImage:
    """Upright RGB image, with the SHA-256 of its file's bytes (or of its drawn pixels)."""

    pixels: Image.Image
    sha256: str


@dataclass(frozen=True)
class Concept:
    """Ground-truth content of an image: its mask, and the words that name it.

    mask: uint8 [24, 24], coverage of each cell of a grid over the whole image, 255 = all of it.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    mask: np.ndarray


class SampleError(Exception):
    """A sample cannot be used. status: one of the statuses of the `samples` table."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)  # Unpickling needs both arguments.
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class SourceError(Exception):
    """The dataset as a whole cannot be read; the message has the file, the field and the remedy."""


class Source(Protocol):
    """An image-text dataset.

    Implementations subclass this class and are frozen dataclasses of their settings. A config can
    therefore name them, and they can be hashed and sent to workers.
    """

    @property
    def title(self) -> str:
        """The dataset's name, without its path."""

    def records(self) -> Iterable[SampleRecord]:
        """List the dataset in its own order without opening an image. Raises SourceError."""

    def open_image(self, image: str) -> OpenedImage:
        """Open one of a record's images. Called on workers.

        Raises SampleError, and SourceError if the dataset as a whole cannot be read.
        """

    def probe(self) -> str:
        """Return a cheap digest that changes whenever the dataset may have changed."""

    def concepts(self, image: str) -> list[Concept]:
        """Return the ground truth of an image; empty if the source has none."""
        return []
