"""Activations as the site draws them: a byte a patch and a byte a text token."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.evidence.evidence import Excitation, to_ten
from neuron_atlas.tasks.report.record import heat_of
from neuron_atlas.tasks.report.site.script import packed
from neuron_atlas.tasks.samples.catalog import Catalog

LOUDEST = 255
"""The byte of the neuron's highest activation; 0 is silent or negative."""


def drawn_bytes(seen: Excitation, scale: float, catalog: Catalog) -> tuple[str, str]:
    """A trace as two base64 strings of uint8, of which `LOUDEST` stands for `scale`.

    The first is row-major over the sample's map (`heat_of`) and empty without one; the second has
    a byte a text token.
    """
    heat = heat_of(seen, scale, catalog)
    return "" if heat is None else _packed(heat), _packed(to_ten(seen.text, scale))


def _packed(tens: np.ndarray) -> str:
    # fmax takes the number where the other is none.
    shares = np.minimum(np.fmax(tens, 0), 10) * np.float32(LOUDEST / 10)
    return packed(np.rint(shares).astype(np.uint8))
