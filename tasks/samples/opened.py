"""Open the picture that the subject saw of a sample, with one error for all failures."""

from __future__ import annotations

from PIL import Image

from neuron_atlas.tasks.models.content import printable
from neuron_atlas.tasks.samples.catalog import Catalog

_MAX_REASON = 200
"""Characters of a reason."""


class UnopenableError(Exception):
    """An image opened in the `samples` stage, but cannot be opened now."""


def open_view(catalog: Catalog, sample_id: int) -> Image.Image:
    """Return `Catalog.open_view`. Raises UnopenableError for any error of the source."""
    try:
        return catalog.open_view(sample_id)
    except Exception as error:
        raise UnopenableError(
            printable(f"sample {sample_id}: {type(error).__name__}: {error}")[:_MAX_REASON]
        ) from error
