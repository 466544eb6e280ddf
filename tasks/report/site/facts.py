"""Summarize a neuron over the whole dataset: moments, histogram, top words, tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts import HISTOGRAMS, MOMENTS, NEURON_TESTS, RESPONSES, ROLES
from neuron_atlas.tasks.artifacts.grouped import PICTURES, SAYINGS
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.report.record import NeuronRecord
from neuron_atlas.tasks.report.site.script import round_significant

STATISTICS = (MOMENTS, HISTOGRAMS, RESPONSES, NEURON_TESTS, SAYINGS)
"""Source tables of the facts. Runs without tests, or without sayings, lack the last ones."""

_MAX_WORDS = 6
_MAX_TOKENS = 10
_TESTED = ("rate_visual", "rate_text", "q_exact", "q_block", "q_both")


def neuron_facts(record: NeuronRecord) -> dict[str, Any]:
    """Return the facts of a neuron that its tables hold.

    moments: by role, [tokens, mean, standard deviation, maximum, share above 0]. histogram: number
    of tokens in each bin, by role. top_words, image_words, concentration, monosemanticity,
    meanings: responses. tested: type, rates and q-values of the tests. effect: of zeroing, with its
    interval, in total and by role, q and causal type. output: the tokens that it promotes and
    suppresses. says: what the subject says with the neuron clamped.
    """
    facts: dict[str, Any] = {}
    rows = record.statistics
    if "moments" in rows:
        facts["moments"] = {role: _moments(rows["moments"], role) for role in ROLES}
    if "histograms" in rows:
        facts["histogram"] = {
            role: np.reshape(rows["histograms"][role], (BLOCKS, BINS)).sum(axis=0).tolist()
            for role in ("visual", "text")
        }
    if "responses" in rows:
        facts |= _responses(rows["responses"])
    if "effects" in rows:
        facts["effect"] = _effect(rows["effects"])
    if "output_tokens" in rows:
        facts["output"] = _output(rows["output_tokens"])
    if "tested_types" in rows:
        tested = rows["tested_types"]
        facts["tested"] = {"type": tested["type_tested"]}
        facts["tested"] |= {name: round_significant(tested[name]) for name in _TESTED}
    if "sayings" in rows:
        facts["says"] = _says(rows["sayings"])
    return facts


def _says(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the subject says with the neuron clamped: of each picture, without and with."""
    said = [[row[f"{name}_without"], row[f"{name}_with"]] for name in PICTURES]
    value = round_significant(row["value"], 3)
    return {"value": value, "sample": row["sample_id"], "said": said, "status": row["status"]}


def _moments(row: Mapping[str, Any], role: str) -> list[float | None]:
    count, m2 = row[f"n_{role}"], row[f"m2_{role}"]
    deviation = (
        round_significant((m2 / count) ** 0.5) if count and m2 is not None and m2 >= 0 else None
    )
    mean, highest, positive = (
        round_significant(row[f"{name}_{role}"]) for name in ("mean", "max", "positive")
    )
    return [count, mean, deviation, highest, positive]


def _effect(row: Mapping[str, Any]) -> dict[str, Any]:
    def measured(name: str) -> list[float | None]:
        return [round_significant(row[one]) for one in (name, f"{name}_low", f"{name}_high")]

    return {
        "total": measured("effect"),
        "roles": [measured(f"effect_{role}") for role in ROLES],
        "q": round_significant(row["q"]),
        "type": row["causal_type"],
        "status": row["status"],
    }


def _output(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "promoted": (row["promoted"] or [])[:_MAX_TOKENS],
        "suppressed": (row["suppressed"] or [])[:_MAX_TOKENS],
        "write": round_significant(row["write"]),
    }


def _responses(row: Mapping[str, Any]) -> dict[str, Any]:
    words = zip(row["top_words"] or (), row["top_word_shares"] or (), strict=True)
    return {
        "top_words": [[word, round_significant(share, 3)] for word, share in words][:_MAX_WORDS],
        "image_words": (row["image_words"] or [])[:_MAX_WORDS],
        "concentration": round_significant(row["concentration"], 3),
        "monosemanticity": round_significant(row["monosemanticity"], 3),
        "meanings": row["meanings"],
    }
