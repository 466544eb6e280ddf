"""Pack what neurons do to the output into columns of the table: effects and faithfulness."""

from __future__ import annotations

import numpy as np
import polars as pl

from neuron_atlas.tasks.artifacts import EFFECTS, FAITHFULNESS, read_table
from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES
from neuron_atlas.tasks.report.inputs import LayerFiles
from neuron_atlas.tasks.report.site.script import to_base64

_NEVER = -1.0


def effect_columns(neurons: pl.DataFrame, files: LayerFiles) -> dict[str, str]:
    """Return `effect` (float32, nats, NaN if not measured) and `causal`, the index of the causal
    type (uint8, one past the last if there is none); empty for a layer without effects.

    neurons: a column `neuron`, the rows of the table.
    """
    if not files[EFFECTS.name]:
        return {}
    names = ["neuron", "effect", "causal_type", "status"]
    found = pl.DataFrame(read_table(files[EFFECTS.name], EFFECTS, names)).filter(status="ok")
    mine = neurons.join(found, on="neuron", how="left")
    codes = {name: code for code, name in enumerate(CAUSAL_TYPES)}
    causal = mine["causal_type"].replace_strict(
        codes, default=len(CAUSAL_TYPES), return_dtype=pl.UInt8
    )
    return {"effect": _floats(mine["effect"]), "causal": to_base64(causal.to_numpy())}


def faithfulness_columns(
    neurons: pl.DataFrame, files: LayerFiles, explainer: str, level: float | None
) -> dict[str, str]:
    """Return `faithfulness` of one explainer's explanations (float32, nats, NaN if not tested) and
    `faithful`, whether its q is at most the level (uint8); empty for a layer without the test."""
    if not files[FAITHFULNESS.name]:
        return {}
    names = ["neuron", "explainer", "faithfulness", "q"]
    found = pl.DataFrame(read_table(files[FAITHFULNESS.name], FAITHFULNESS, names))
    mine = neurons.join(found.filter(explainer=explainer), on="neuron", how="left")
    passed = (mine["q"].fill_nan(None) <= (_NEVER if level is None else level)).fill_null(
        value=False
    )
    return {
        "faithfulness": _floats(mine["faithfulness"]),
        "faithful": to_base64(passed.to_numpy().astype(np.uint8)),
    }


def _floats(values: pl.Series) -> str:
    return to_base64(values.fill_null(float("nan")).to_numpy().astype(np.float32))
