"""Read the near misses of a neuron's explanation, and the sizes of the strata that they define."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuron_atlas.tasks.artifacts import NEAR_MISSES, STRATUM_SIZES, read_table
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, activation_records


@dataclass(frozen=True)
class Strata:
    """Strata of the dataset for one neuron and its explanation.

    sizes: samples that are exemplars; that are near misses; and that are neither. predicted: number
    of samples that the explanation predicts. predicted_ids: those among the scorer's exemplars and
    random samples. records: drawn near misses.
    """

    sizes: tuple[int, int, int]
    predicted: int
    predicted_ids: frozenset[int]
    records: tuple[ActivationRecord, ...] = ()


def claim_of(text: str) -> str:
    """Return the hash that names an explanation."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_strata(files: Sequence[tuple[Path, Path]], texts: Mapping[int, str]) -> dict[int, Strata]:
    """Load the strata of some neurons of one layer, by neuron.

    files: pairs of a file of `stratum_sizes` and its file of `near_misses`. texts: the explanation
    of each neuron. A neuron whose explanation is in no file is absent.
    """
    claims = {neuron: claim_of(text) for neuron, text in texts.items()}
    found: dict[int, Strata] = {}
    for sizes, near_misses in files:
        rows = [
            row
            for row in read_table(sizes, STRATUM_SIZES, neurons=claims).to_pylist()
            if row["claim"] == claims[row["neuron"]]
        ]
        drawn = read_table(
            near_misses,
            NEAR_MISSES,
            ["neuron", "sample_id", "visual", "text"],
            neurons={row["neuron"] for row in rows},
        )
        records: dict[int, list[ActivationRecord]] = {}
        for neuron, record in zip(
            drawn["neuron"].to_pylist(), activation_records(drawn), strict=True
        ):
            records.setdefault(neuron, []).append(record)
        for row in rows:
            found[row["neuron"]] = Strata(
                (row["exemplars"], row["near_misses"], row["rest"]),
                row["predicted"],
                frozenset(row["predicted_ids"]),
                tuple(records.get(row["neuron"], ())),
            )
    return found
