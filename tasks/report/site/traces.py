"""Encode activations for the site, with one byte per patch and per text token."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.evidence.evidence import ActivationRecord, normalize_to_ten
from neuron_atlas.tasks.report.record import sample_heat_map
from neuron_atlas.tasks.report.site.script import to_base64
from neuron_atlas.tasks.samples.catalog import Catalog

MAX_BYTE = 255
"""The byte of the neuron's highest activation. 0 stands for 0 and negative values."""


def encode_trace(trace: ActivationRecord, scale: float, catalog: Catalog) -> tuple[str, str]:
    """Encode a trace as two base64 strings of uint8, in which `scale` maps to 255.

    The first is the sample's heat map (`sample_heat_map`), row-major; it is empty without one. The
    second has one byte per text token.
    """
    heat = sample_heat_map(trace, scale, catalog)
    return "" if heat is None else _packed(heat), _packed(normalize_to_ten(trace.text, scale))


def _packed(tens: np.ndarray) -> str:
    # fmax ignores NaN.
    shares = np.minimum(np.fmax(tens, 0), 10) * np.float32(MAX_BYTE / 10)
    return to_base64(np.rint(shares).astype(np.uint8))
