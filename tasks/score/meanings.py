"""Score the explanations of single meanings of neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import MEANING_SCORES, TRANSIENT_STATUSES
from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.evidence.meanings import MeaningEvidence
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.align import Aligned
from neuron_atlas.tasks.score.correlation import cross_sums, real_sums
from neuron_atlas.tasks.score.margin import weighted_correlations
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.weights import weigh

_ROLES = ("visual", "text")
_CLAIMS = ("own", "whole")
_MEASURES = ("correlation", "ci_low", "ci_high", "whole", "gain", "gain_low", "gain_high")


class Predicted(Protocol):
    """Prediction for one sample: its traces by role, None if the role is not predicted."""

    @property
    def visual(self) -> np.ndarray | None:
        """Float32 [n_visual]."""

    @property
    def text(self) -> np.ndarray | None:
        """Float32 [n_text]."""

    @property
    def status(self) -> str:
        """One of the statuses of `simulations`."""

    @property
    def reason(self) -> str:
        """What went wrong; empty if ok."""


@dataclass(frozen=True)
class ScoredMeaning:
    """One meaning of a neuron, to score.

    meaning: its evidence for the scorer. strata: of the dataset, for the whole neuron. predictions:
    of the meaning's and of the whole neuron's explanation, for each of its samples; empty without
    an explanation.
    """

    meaning: MeaningEvidence
    strata: Strata | None
    predictions: tuple[Sequence[Predicted], ...]


def score_meanings(
    explainer: str, simulator: str, meanings: Sequence[ScoredMeaning], settings: ScoreSettings
) -> pa.Table:
    """Return `meaning_scores` rows, one for each meaning, in order.

    The score is that of whole neurons over all tokens (`score_neurons`), over another population:
    the dataset without the samples of other meanings, which are neither hits nor misses. All
    held-out samples count, each with the weight of its stratum. A sample without a prediction of
    both explanations is left out.
    """
    rows = [_Row.of(one, settings) for one in meanings]
    scored = [number for number, row in enumerate(rows) if row.status == "ok"]
    measures = _correlate([meanings[n] for n in scored], [rows[n] for n in scored], settings)
    place = {number: place for place, number in enumerate(scored)}
    found = []
    for number, (one, row) in enumerate(zip(meanings, rows, strict=True)):
        values: dict[str, float | None] = dict.fromkeys(_MEASURES)
        status, reason = row.status, row.reason
        if number in place:
            mine = {name: float(measures[name][place[number]]) for name in _MEASURES}
            values |= {name: value for name, value in mine.items() if np.isfinite(value)}
            if not np.isfinite(mine["correlation"]):
                values = dict.fromkeys(_MEASURES)
                status, reason = "no_variance", "activations or predictions do not vary"
        found.append(
            {
                "layer": one.meaning.evidence.layer,
                "neuron": one.meaning.evidence.neuron,
                "explainer": explainer,
                "simulator": simulator,
                "meaning": one.meaning.meaning,
                "n_samples": len(row.used),
                "n_exemplars": row.n_exemplars,
                "status": status,
                "reason": reason,
                **values,
            }
        )
    return pa.Table.from_pylist(found, schema=MEANING_SCORES.schema)


@dataclass(frozen=True)
class _Row:
    """The samples of a meaning that count: indices into its records; and why it has no score."""

    used: Sequence[int]
    n_exemplars: int
    status: str = "ok"
    reason: str = ""

    @staticmethod
    def of(one: ScoredMeaning, settings: ScoreSettings) -> _Row:
        if not one.predictions:
            return _Row((), 0, "no_explanation", "the meaning or the neuron has no explanation")
        pairs = list(zip(*one.predictions, strict=True))
        failed = [each for pair in pairs for each in pair if each.status != "ok"]
        used = [n for n, pair in enumerate(pairs) if all(each.status == "ok" for each in pair)]
        n_exemplars = sum(n < len(one.meaning.evidence.exemplars) for n in used)
        transient = next((each for each in failed if each.status in TRANSIENT_STATUSES), None)
        if transient is not None:  # A later run asks again, and then all samples count.
            return _Row(used, n_exemplars, transient.status, transient.reason)
        if len(used) < settings.min_samples or not 0 < n_exemplars < len(used):
            reason = f"{n_exemplars} exemplars among {len(used)} held-out samples with a prediction"
            return _Row(used, n_exemplars, "too_few_samples", reason)
        return _Row(used, n_exemplars)


def _correlate(
    meanings: Sequence[ScoredMeaning], rows: Sequence[_Row], settings: ScoreSettings
) -> Mapping[str, np.ndarray]:
    """Return each of _MEASURES over all tokens, float64 [meanings]."""
    if not meanings:
        return {name: np.empty(0) for name in _MEASURES}
    records, group, is_exemplar, is_near_miss = [], [], [], []
    predicted: list[list[ActivationRecord]] = [[], []]
    strata = []
    for number, (one, row) in enumerate(zip(meanings, rows, strict=True)):
        evidence = one.meaning.evidence
        first_near_miss = len(evidence.exemplars) + len(evidence.random)
        pairs = [[claim[n] for n in row.used] for claim in one.predictions]
        its = [evidence.records[n] for n in row.used]
        # A role that is not predicted on one sample has no tokens on all of them.
        has_visual = all(each.visual is not None for claim in pairs for each in claim)
        has_text = all(each.text is not None for claim in pairs for each in claim)
        records += [_trace(each.sample_id, each, has_visual, has_text) for each in its]
        for claim, mine in zip(predicted, pairs, strict=True):
            claim += [_trace(-1, each, has_visual, has_text) for each in mine]
        group += [number] * len(its)
        is_exemplar += [n < len(evidence.exemplars) for n in row.used]
        is_near_miss += [n >= first_near_miss for n in row.used]
        strata.append(_strata_of(one))
    offsets = [np.cumsum([0, *(len(getattr(each, role)) for each in records)]) for role in _ROLES]
    aligned = Aligned(
        group=np.array(group, np.int64),
        exemplar=np.array(is_exemplar),
        near_miss=np.array(is_near_miss),
        excitations=records,
        visual=_flat(records, "visual"),
        text=_flat(records, "text"),
        offsets=(offsets[0], offsets[1]),
        predicted={},
        left_out=np.zeros((2, len(group)), bool),
        unpaired=(np.empty(0, np.int64), np.empty(0, np.int64)),
    )
    real = np.stack(
        [real_sums(getattr(aligned, role), its) for role, its in zip(_ROLES, offsets, strict=True)],
        axis=1,
    )
    cross = np.stack(
        [
            np.stack(
                [
                    # As stored predictions of whole neurons are.
                    cross_sums(getattr(aligned, role), _flat(claim, role).astype(np.float16), its)
                    for role, its in zip(_ROLES, offsets, strict=True)
                ],
                axis=1,
            )
            for claim in predicted
        ]
    )
    weighted = weigh(aligned, strata)
    measures = weighted_correlations(real, cross, aligned.group, weighted, settings, _CLAIMS)
    names = {"whole": "control_whole"} | {
        f"gain{end}": f"margin{end}" for end in ("", "_low", "_high")
    }
    return {name: measures[names.get(name, name)][0] for name in _MEASURES}


def _trace(
    sample_id: int, of: ActivationRecord | Predicted, has_visual: bool, has_text: bool
) -> ActivationRecord:
    nothing = np.empty(0, np.float32)
    visual, text = (
        of.visual if has_visual and of.visual is not None else nothing,
        of.text if has_text and of.text is not None else nothing,
    )
    return ActivationRecord(sample_id, visual, text)


def _strata_of(one: ScoredMeaning) -> Strata | None:
    """Return the strata of the dataset without the samples that are not of the meaning.

    Of near misses and rest, the share that was left out of the drawn ones is left out.
    """
    strata, meaning = one.strata, one.meaning
    if strata is None:
        return None
    near = {each.sample_id for each in strata.records} | strata.predicted_ids
    others = [*meaning.evidence.random, *meaning.evidence.near_misses]
    drawn = [each.sample_id in near for each in others]
    gone = [each in near for each in meaning.left_out]
    kept = [
        drawn.count(is_near) / max(1, drawn.count(is_near) + gone.count(is_near))
        for is_near in (True, False)
    ]
    _, near_misses, rest = strata.sizes
    sizes = (meaning.n_exemplars, round(near_misses * kept[0]), round(rest * kept[1]))
    return replace(strata, sizes=sizes)


def _flat(traces: Sequence[ActivationRecord], role: str) -> np.ndarray:
    parts = [np.asarray(getattr(one, role), np.float32) for one in traces]
    return np.concatenate([np.empty(0, np.float32), *parts])
