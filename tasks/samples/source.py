"""Protocol of an image-text source, and the records and errors that it exchanges."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from neuron_atlas.tasks.clean_text import clean_text

MAX_TEXT = 1_000_000
"""Characters of a sample's text; no subject reads a longer one."""


@dataclass(frozen=True)
class SampleRecord:
    """One sample as the dataset lists it: images, not opened yet, and their text.

    images: references for `Source.open_image`, usually one; none for a sample without images.
    status, reason: "ok", or why the sample cannot be used; its images are then not opened.

    Cleans the id and the text (see `clean_text`). A text above `MAX_TEXT` and an image whose name
    is not Unicode make the sample unusable.
    """

    source_id: str
    images: tuple[str, ...]
    text: str
    status: str = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "source_id", clean_text(self.source_id))
        object.__setattr__(self, "text", clean_text(self.text))
        for image in self.images:
            if not _is_unicode(image):
                self._refuse("malformed", f"the name {image!r} is not Unicode; rename the file")
                object.__setattr__(self, "images", ())
                break
        if len(self.text) > MAX_TEXT:
            self._refuse(
                "oversized",
                f"the text has {len(self.text):,} characters; the limit is {MAX_TEXT:,}",
            )
            object.__setattr__(self, "text", "")

    def _refuse(self, status: str, reason: str) -> None:
        if self.status == "ok":
            object.__setattr__(self, "status", status)
            object.__setattr__(self, "reason", reason)

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


def unusable(source_id: str, error: SampleError, images: tuple[str, ...] = ()) -> SampleRecord:
    """Return the record of a sample that the dataset lists but that cannot be used."""
    return SampleRecord(source_id, images, "", error.status, error.reason)


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
        """List the dataset in its own order without opening an image.

        A row that cannot be used is a record with a status and a reason. Raises SourceError if the
        dataset as a whole cannot be read.
        """

    def open_image(self, image: str) -> OpenedImage:
        """Open one of a record's images. Called on workers.

        Raises SampleError, and SourceError if the dataset as a whole cannot be read.
        """

    def probe(self) -> str:
        """Return a cheap digest that changes whenever the dataset may have changed."""

    def concepts(self, image: str) -> list[Concept]:
        """Return the ground truth of an image; empty if the source has none."""
        return []

    def objects(self, source_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return the names of the objects in some samples' images, where the dataset lists them."""
        return {}

    def notes(self) -> list[str]:
        """Return lines for the user on how the dataset is read, such as the caption file taken."""
        return []


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
