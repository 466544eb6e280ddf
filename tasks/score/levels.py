"""Compare an explanation with its broader and narrower claims, paired over samples."""

from __future__ import annotations

import numpy as np
import polars as pl

from neuron_atlas.tasks.artifacts import LEVELS
from neuron_atlas.tasks.score.correlation import pearson
from neuron_atlas.tasks.score.paired import paired_p
from neuron_atlas.tasks.score.pool import by_tokens, pool


def compare_levels(
    own: np.ndarray, levels: np.ndarray, group: np.ndarray, is_exemplar: np.ndarray, groups: int
) -> dict[str, np.ndarray]:
    """Return the correlation of each of LEVELS, and the p-value that the own explanation is no
    better, [3 tokens, groups]; NaN without such a claim.

    own: sums [2, 3, 2 roles, samples], of the real activations and of the own prediction. levels:
    [LEVELS, 3, 2 roles, samples], NaN without a prediction. All are multiplied by the weights of
    the samples. The own explanation does not have to beat 0 here, which is `p_paired`.
    """
    real = by_tokens(pool(own[0], group, groups))
    found: dict[str, np.ndarray] = {}
    for name, sums in zip(LEVELS, levels, strict=True):
        r = pearson(real, by_tokens(pool(sums, group, groups)))
        rivals = np.concatenate([own, sums[None]])
        p = paired_p(rivals, group, is_exemplar, groups, against_zero=False)
        found |= {f"control_{name}": r, f"p_{name}": np.where(np.isnan(r), np.nan, p)}
    return found


def level_claims(rows: pl.DataFrame, groups: int) -> dict[str, list[str | None]]:
    """Return the words of each of LEVELS by explanation, [groups]; None without such a claim.

    rows: of `simulations`, with the number of their explanation as `group`.
    """
    found: dict[str, list[str | None]] = {name: [None] * groups for name in LEVELS}
    for name, words in found.items():
        claims = rows.filter(pl.col("explanation") == name, pl.col("wording") != "")
        for group, wording in claims.select("group", "wording").unique("group").rows():
            words[group] = wording
    return found
