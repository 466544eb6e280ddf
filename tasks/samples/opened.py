"""Opens what the subject saw of a sample, or says why it cannot be had."""

from __future__ import annotations

from PIL import Image

from neuron_atlas.tasks.models.content import printable
from neuron_atlas.tasks.samples.catalog import Catalog

_LISTED_REASON = 200


class Unopenable(Exception):
    """An image that was there when the samples were listed, and is not now."""


def open_view(catalog: Catalog, sample_id: int) -> Image.Image:
    """See `Catalog.open_view`. Raises Unopenable, whatever the source raises."""
    try:
        return catalog.open_view(sample_id)
    except Exception as error:
        raise Unopenable(
            printable(f"sample {sample_id}: {type(error).__name__}: {error}")[:_LISTED_REASON]
        ) from error
