"""Reduce a layer's exemplars to their peaks by role and their visual concentration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import NO_SAMPLE, ROLES, slot_values


@dataclass(frozen=True)
class Peaks:
    """Peaks of a layer's exemplars; all arrays are [exemplars].

    row: row of the neuron in `exemplars`. visual, text: highest activation by role, -inf if the
    sample has no such tokens. text_token: index of the text peak among the text tokens; -1 without
    one. visual_token: index of the peak among the visual tokens; -1 if it is in the text.
    visual_sum, visual_sum_sq: sums of the positive visual activations and of their squares.
    """

    row: np.ndarray
    sample_id: np.ndarray
    visual: np.ndarray
    text: np.ndarray
    text_token: np.ndarray
    visual_token: np.ndarray
    visual_sum: np.ndarray
    visual_sum_sq: np.ndarray


def peaks_of(exemplars: pa.Table) -> Peaks:
    """Return the peaks of all filled slots of an `exemplars` table, neuron by neuron."""
    sample_id = slot_values(exemplars, "sample_id")
    filled = sample_id != NO_SAMPLE

    def highest(role: str) -> np.ndarray:
        top = slot_values(exemplars, f"{role}_top")[:, :, 0][filled]
        return np.where(np.isnan(top), -np.inf, top)

    in_image = slot_values(exemplars, "peak_role")[filled] == ROLES.index("visual")
    return Peaks(
        row=np.nonzero(filled)[0],
        sample_id=sample_id[filled],
        visual=highest("visual"),
        text=highest("text"),
        text_token=slot_values(exemplars, "text_peak_token")[filled],
        visual_token=np.where(in_image, slot_values(exemplars, "peak_token")[filled], -1),
        visual_sum=slot_values(exemplars, "visual_sum")[filled],
        visual_sum_sq=slot_values(exemplars, "visual_sum_sq")[filled],
    )


def concentration(total: np.ndarray, squares: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the concentration of activations, float64 [rows]: 0 if even, 1 if all are at a single
    token.

    total, squares: sums of the positive activations and of their squares. tokens: number of tokens,
    int [rows]. NaN if a row has no positive activation or less than two tokens. The measure is
    (1 - mean(r)^2 / mean(r^2)) / (1 - 1 / n) (Vinje and Gallant, Science 287, 2000, after Treves
    and Rolls).
    """
    total, squares = total.astype(np.float64), squares.astype(np.float64)
    defined = (tokens > 1) & (squares > 0)
    undefined = np.full(len(tokens), np.nan)
    evenness = np.divide(total**2, tokens * squares, out=undefined, where=defined)
    return (1 - evenness) / (1 - 1 / np.maximum(tokens, 2))
