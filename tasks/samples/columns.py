"""Find the columns of a dataset that hold images and texts, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

IMAGE_COLUMNS = (
    *("image", "images", "file_name", "image_path", "image_file", "image_name", "img", "img_path"),
    *("img_name", "image_filename", "filename", "file", "file_path", "filepath", "path"),
    *("image_id", "photo"),
)
CHAT_COLUMNS = ("conversations", "messages", "texts", "conversation")
TEXT_COLUMNS = (
    *("text", "caption", "captions", "description", "txt", "sentence", "sentences", "comment"),
    *("prompt", "alt_text", "title", *CHAT_COLUMNS),
)
"""Obvious names, the best first."""


def find_column(names: Iterable[str], obvious: Sequence[str]) -> str | None:
    """Return the column with the best of the `obvious` names; None without one.

    Case, spaces around a name, and spaces or hyphens for underscores do not matter.
    """
    by_key = {_key(name): name for name in reversed(list(names))}
    return next((by_key[key] for key in obvious if key in by_key), None)


def count_obvious(names: Iterable[str]) -> int:
    """Return how many of the columns have an obvious name."""
    return sum(_key(name) in IMAGE_COLUMNS or _key(name) in TEXT_COLUMNS for name in names)


def _key(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")
