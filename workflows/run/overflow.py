"""Fail the run if too many activations of a layer overflow."""

from __future__ import annotations

from collections.abc import Mapping

from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.workflows.run.errors import RunError


def check_overflow(shares: Mapping[int, float], settings: CaptureSettings, dtype: str) -> None:
    """Raise RunError if the share of infinite or NaN activations of a layer exceeds
    settings.max_nonfinite_share. shares: by layer. dtype: of the subject."""
    limit = settings.max_nonfinite_share
    over = {layer: share for layer, share in sorted(shares.items()) if share > limit}
    if not over:
        return
    listed = ", ".join(f"{share:.1%} of layer {layer}" for layer, share in list(over.items())[:5])
    more = f" and {len(over) - 5} more layers" if len(over) > 5 else ""
    remedy = (
        "they overflow float16: set subject.dtype=bfloat16, or float32"
        if dtype in ("float16", "auto")
        else f"no number of {dtype} is large enough, or the weights are damaged: check the weights"
    )
    raise RunError(
        f"too many activations are infinite or NaN ({listed}{more}), and "
        f"capture.max_nonfinite_share is {limit:.2%}; {remedy}, or raise this limit"
    )
