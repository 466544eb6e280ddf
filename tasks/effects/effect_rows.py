"""Turn sums of attribution into rows of `effects`, with intervals, q-values and causal types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import ROLES, read_table, write_table
from neuron_atlas.tasks.artifacts.effects import ATTRIBUTION, EFFECTS, MEASURES
from neuron_atlas.tasks.effects.attribution import read_sums
from neuron_atlas.tasks.effects.settings import EffectsSettings
from neuron_atlas.tasks.statistics.false_discovery import q_values
from neuron_atlas.tasks.statistics.skewed_means import POWERS, skewed_means


def effect_rows(layer: int, shards: Sequence[Path], mean_activation: np.ndarray) -> pa.Table:
    """Return rows of `effects` of one layer from the files of its shards.

    mean_activation: float [neurons]. q-values and causal types need all layers: until
    `decide_effects` fills them in, `q_visual`, `q_text` and `q_template` hold p-values.
    """
    n_samples, powers, magnitudes, _ = read_sums([read_table(one, ATTRIBUTION) for one in shards])
    with np.errstate(invalid="ignore", over="ignore"):
        found = skewed_means(powers, n_samples)
    place = {name: number for number, name in enumerate(MEASURES)}
    neurons = powers.shape[-1]
    columns: dict[str, np.ndarray] = {}
    for name, measure in (
        ("effect", "zero"),
        *((f"effect_{role}", f"zero_{role}") for role in ROLES),
        ("mean_effect", "mean"),
    ):
        row = place[measure]
        columns |= {
            name: found.mean[row], f"{name}_low": found.low[row], f"{name}_high": found.high[row]
        }  # fmt: skip
    for number, role in enumerate(ROLES):
        columns[f"mean_effect_{role}"] = found.mean[place[f"mean_{role}"]]
        columns[f"magnitude_{role}"] = magnitudes[number] / max(1, n_samples)
        columns[f"q_{role}"] = found.p[place[f"zero_{role}"]]
    columns["p"] = found.p[place["zero"]]
    finite = np.isfinite(powers).all((0, 1))
    columns = {name: np.where(finite, values, np.nan) for name, values in columns.items()}
    enough = n_samples >= POWERS
    status = np.where(finite, "ok" if enough else "too_few_samples", "nonfinite")
    reason = np.where(
        finite,
        "" if enough else f"an interval needs {POWERS} samples",
        "the loss or a gradient is infinite or NaN; use a wider subject.dtype",
    )
    given = {
        "layer": np.full(neurons, layer),
        "neuron": np.arange(neurons),
        "q": np.full(neurons, np.nan),
        "causal_type": np.full(neurons, ""),
        "mean_activation": mean_activation,
        "n_samples": np.full(neurons, n_samples),
        "status": status,
        "reason": reason,
    }
    return _table(columns | given)


def decide_effects(
    merged: Sequence[Path], written: Sequence[Path], settings: EffectsSettings
) -> None:
    """Write `merged` to `written`, with q-values over all layers and causal types."""
    tables = [read_table(path, EFFECTS) for path in merged]
    p = np.concatenate([_numbers(table, "p") for table in tables])
    p_roles = np.concatenate([_by_role(table, "q") for table in tables], axis=1)
    q, q_roles = q_values(p), q_values(p_roles.ravel()).reshape(p_roles.shape)
    start = 0
    for table, path in zip(tables, written, strict=True):
        rows = slice(start, start + len(table))
        start += len(table)
        columns = {name: table[name] for name in table.column_names}
        columns["q"] = pa.array(q[rows], from_pandas=True)
        for role, mine in zip(ROLES, q_roles[:, rows], strict=True):
            columns[f"q_{role}"] = pa.array(mine, from_pandas=True)
        columns["causal_type"] = causal_types(
            _by_role(table, "magnitude"), q_roles[:, rows], settings
        )
        write_table(pa.table(columns), EFFECTS, path)


def causal_types(
    magnitudes: np.ndarray, q_roles: np.ndarray, settings: EffectsSettings
) -> np.ndarray:
    """Return the causal type of each neuron. magnitudes, q_roles: [roles, neurons].

    A role that has `min_share` of the magnitude names the type if its effect differs from 0.
    Without such a role the type is multi-modal if the effect through any role does.
    """
    total = magnitudes.sum(0)
    shares = magnitudes / np.where(total > 0, total, 1)
    # NaN counts as no effect.
    differs = q_roles <= settings.max_q
    largest = shares.argmax(0)
    is_largest_different = np.take_along_axis(differs, largest[None], 0)[0]
    is_alone = shares.max(0) >= settings.min_share
    types = np.where(
        is_alone,
        np.where(is_largest_different, np.array(ROLES)[largest], "none"),
        np.where(differs.any(0), "multi-modal", "none"),
    )
    return np.where(total > 0, types, "none")


def _by_role(table: pa.Table, name: str) -> np.ndarray:
    return np.stack([_numbers(table, f"{name}_{role}") for role in ROLES])


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy().astype(np.float64)


def _table(columns: dict[str, np.ndarray]) -> pa.Table:
    arrays = {name: pa.array(columns[name], from_pandas=True) for name in EFFECTS.schema.names}
    return pa.table(arrays).cast(EFFECTS.schema)
