"""Encode activations for the site, with one byte per patch and per text token."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence

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


def draw_traces(
    traces: Sequence[ActivationRecord], scales: Sequence[float], catalog: Catalog
) -> list[tuple[str, str]]:
    """Return `encode_trace` of many traces, each with its scale."""
    has_grid = [_is_one_grid(trace, catalog) for trace in traces]
    grids = [
        trace.visual if one_grid else trace.visual[:0]
        for trace, one_grid in zip(traces, has_grid, strict=True)
    ]
    visual, text = _packed_all(grids, scales), _packed_all([one.text for one in traces], scales)
    return [
        (grid if one_grid else encode_trace(trace, scale, catalog)[0], words)
        for trace, scale, one_grid, grid, words in zip(
            traces, scales, has_grid, visual, text, strict=True
        )
    ]


def _is_one_grid(trace: ActivationRecord, catalog: Catalog) -> bool:
    """Return whether the heat map of a trace is its visual tokens in their order."""
    sample = catalog.samples.get(trace.sample_id)
    if sample is None or len(sample.regions) != 1:
        return False
    return 0 < len(trace.visual) == sample.n_visual


def _packed_all(values: Sequence[np.ndarray], scales: Sequence[float]) -> list[str]:
    lengths = np.array([len(one) for one in values], dtype=np.int64)
    factors = np.array([10 / scale if scale > 0 else 0 for scale in scales]).astype(np.float32)
    together = np.concatenate([np.empty(0, np.float32), *values])
    codes = _codes(np.clip(together, 0, None) * np.repeat(factors, lengths)).tobytes()
    stops = np.cumsum(lengths)
    return [
        b2a_base64(codes[start:stop], newline=False).decode("ascii")
        for start, stop in zip((stops - lengths).tolist(), stops.tolist(), strict=True)
    ]


def _packed(tens: np.ndarray) -> str:
    return to_base64(_codes(tens))


def _codes(tens: np.ndarray) -> np.ndarray:
    # fmax ignores NaN.
    shares = np.minimum(np.fmax(tens, 0), 10) * np.float32(MAX_BYTE / 10)
    return np.rint(shares).astype(np.uint8)
