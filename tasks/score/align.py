"""Align predictions with real activations: the same samples for all claims about a neuron."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import CLAIMS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, Purpose

GROUP = ["layer", "neuron", "explainer", "simulator"]
"""Key columns of a group: one explanation, as simulated by one simulator."""
_ROLES = ("visual", "text")


@dataclass(frozen=True)
class Predicted:
    """One claim's predictions on the samples of an `Aligned`.

    visual, text: float16 [tokens], concatenated over samples. detected: float64 [samples], NaN if
    the simulator did not rate the whole sample. is_made: bool [samples]; where False there is no
    prediction, and its values are 0.
    """

    visual: np.ndarray
    text: np.ndarray
    detected: np.ndarray
    is_made: np.ndarray


@dataclass(frozen=True)
class Aligned:
    """Samples of all explanations, concatenated and sorted by explanation.

    group: int64 [samples], index of the explanation, ascending. exemplar, near_miss: bool
    [samples]; both False for random samples. excitations: the real activations. visual, text: the
    same, float32 [tokens], concatenated; offsets: where samples start in them, int64 [samples + 1]
    each. predicted: by claim. left_out: bool [visual and text, samples], whether the simulator does
    not predict a role's tokens for this explanation; its samples then have no tokens of that role.
    unpaired: int64, the groups of the exemplars, and of the random samples, that were dropped
    because there were fewer samples of the other kind.
    """

    group: np.ndarray
    exemplar: np.ndarray
    near_miss: np.ndarray
    excitations: Sequence[ActivationRecord]
    visual: np.ndarray
    text: np.ndarray
    offsets: tuple[np.ndarray, np.ndarray]
    predicted: Mapping[str, Predicted]
    left_out: np.ndarray
    unpaired: tuple[np.ndarray, np.ndarray]

    def select(self, chosen: np.ndarray) -> Aligned:
        """Return the same of the `chosen` samples, bool [samples]."""
        if chosen.all():
            return self
        lengths = [np.diff(offsets) for offsets in self.offsets]
        visual, text = (np.repeat(chosen, one) for one in lengths)
        starts = [np.cumsum([0, *one[chosen].tolist()]) for one in lengths]
        return replace(
            self,
            group=self.group[chosen],
            exemplar=self.exemplar[chosen],
            near_miss=self.near_miss[chosen],
            excitations=list(compress(self.excitations, chosen.tolist())),
            visual=self.visual[visual],
            text=self.text[text],
            offsets=(starts[0], starts[1]),
            predicted={
                claim: Predicted(
                    one.visual[visual], one.text[text], one.detected[chosen], one.is_made[chosen]
                )
                for claim, one in self.predicted.items()
            },
            left_out=self.left_out[:, chosen],
        )


def align(
    simulations: pa.Table,
    rows: pl.DataFrame,
    purpose: Purpose,
    claims: Sequence[str],
    evidence: Sequence[Evidence],
    min_samples: int,
    optional: Sequence[str] = (),
) -> Aligned:
    """Return the samples of one purpose with the predictions of all `claims`, the own one first.

    rows: rows of `simulations`, with their index as `row` and that of their explanation as `group`.
    evidence: holds the real traces. A sample counts if every claim has a prediction for it, so all
    claims are scored on the same samples. A claim with fewer than `min_samples` predictions for an
    explanation is left out of that explanation instead. An explanation has equally many exemplars
    and random samples; of the more frequent kind, an evenly spaced selection is used. Without a
    sample of either kind, its near misses do not count either. `optional` claims do not decide
    which samples count; one without a prediction for all of them is left out. Raises ValueError if
    a simulation and its sample differ in their number of tokens.
    """
    ok = rows.filter(pl.col("status") == "ok", pl.col("purpose") == purpose)
    chosen = _of_claim(ok, "own")
    for claim in claims[1:]:
        other = _of_claim(ok, claim).filter(pl.len().over("group") >= min_samples)
        has_claim = chosen["group"].is_in(other["group"].unique().implode())
        other = other.select("group", "sample_id", pl.col("row").alias(claim))
        chosen = (
            chosen.with_columns(has_claim.alias("has_claim"))
            .join(other, on=["group", "sample_id"], how="left", maintain_order="left")
            .filter(pl.col(claim).is_not_null() | ~pl.col("has_claim"))
            .drop("has_claim")
        )
    chosen, unpaired = _balanced_samples(chosen)
    for claim in optional:
        other = _of_claim(ok, claim).select("group", "sample_id", pl.col("row").alias(claim))
        chosen = chosen.join(other, on=["group", "sample_id"], how="left", maintain_order="left")
        is_whole = pl.col(claim).is_not_null().all().over("group")
        chosen = chosen.with_columns(pl.when(is_whole).then(pl.col(claim)).alias(claim))
    real = {
        (neuron.layer, neuron.neuron, sample.sample_id): sample
        for neuron in evidence
        for sample in neuron.records
    }
    excitations = [real[key] for key in chosen.select("layer", "neuron", "sample_id").rows()]
    group = chosen["group"].to_numpy().astype(np.int64)
    rows_of = {
        claim: chosen["row" if claim == CLAIMS[0] else claim] for claim in (*claims, *optional)
    }
    left_out = _left_out(simulations, rows_of.values(), excitations, group)
    if left_out.any():
        excitations = [_without(*one) for one in zip(excitations, *left_out.tolist(), strict=True)]
    traces = [[getattr(sample, role) for sample in excitations] for role in _ROLES]
    offsets = tuple(np.cumsum([0, *map(len, trace)]) for trace in traces)
    visual, text = (np.concatenate([np.empty(0, np.float32), *trace]) for trace in traces)
    return Aligned(
        group=group,
        exemplar=(chosen["stratum"] == "exemplar").to_numpy(),
        near_miss=(chosen["stratum"] == "near_miss").to_numpy(),
        excitations=excitations,
        visual=visual,
        text=text,
        offsets=(offsets[0], offsets[1]),
        predicted={
            claim: _predictions(simulations, claim_rows, offsets, left_out)
            for claim, claim_rows in rows_of.items()
        },
        left_out=left_out,
        unpaired=unpaired,
    )


def _of_claim(rows: pl.DataFrame, claim: str) -> pl.DataFrame:
    return rows.filter(pl.col("explanation") == claim)


def _balanced_samples(chosen: pl.DataFrame) -> tuple[pl.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """Return the samples that count, and `Aligned.unpaired`."""
    kind = ["group", "stratum"]
    is_exemplar, is_random = (pl.col("stratum") == name for name in ("exemplar", "random"))
    is_paired = is_exemplar | is_random
    count = pl.min_horizontal(is_exemplar.sum().over("group"), is_random.sum().over("group"))
    index, n_of_kind = pl.int_range(pl.len()).over(kind), pl.len().over(kind).cast(pl.Int64)
    steps = [end * count.cast(pl.Int64) // n_of_kind for end in (index, index + 1)]
    chosen = chosen.with_columns(
        pl.when(is_paired).then(steps[0] < steps[1]).otherwise(count > 0).alias("counts")
    )
    dropped = chosen.filter(~pl.col("counts"))
    unpaired = [dropped.filter(which)["group"].to_numpy() for which in (is_exemplar, is_random)]
    counting = chosen.filter("counts").drop("counts")
    return counting, (unpaired[0].astype(np.int64), unpaired[1].astype(np.int64))


def _left_out(
    simulations: pa.Table,
    claims: Collection[pl.Series],
    excitations: Sequence[ActivationRecord],
    group: np.ndarray,
) -> np.ndarray:
    """Return `Aligned.left_out`.

    A role that is missing for one sample or claim is left out of the whole explanation. So all its
    claims are scored on the same tokens.
    """
    left_out = np.zeros((2, len(group)), dtype=bool)
    for role, name in enumerate(_ROLES):
        is_null = simulations[name].is_null().to_numpy()
        if not is_null.any():
            continue
        has_tokens = np.array(
            [len(getattr(sample, name)) > 0 for sample in excitations], dtype=bool
        )
        for rows in claims:
            is_made = rows.is_not_null().to_numpy()
            left_out[role, is_made] |= is_null[rows.drop_nulls().to_numpy()] & has_tokens[is_made]
        left_out[role] = np.isin(group, group[left_out[role]])
    return left_out


def _without(sample: ActivationRecord, is_visual_out: bool, is_text_out: bool) -> ActivationRecord:
    if is_visual_out:
        sample = replace(sample, visual=sample.visual[:0])
    return replace(sample, text=sample.text[:0]) if is_text_out else sample


def _predictions(
    simulations: pa.Table,
    rows: pl.Series,
    offsets: tuple[np.ndarray, ...],
    left_out: np.ndarray,
) -> Predicted:
    """Return the predictions in `rows` of `simulations`; 0 where a row is null."""
    is_made = rows.is_not_null().to_numpy()
    indices = rows.drop_nulls().to_numpy()
    sides = []
    for name, bounds, is_out in zip(_ROLES, offsets, left_out, strict=True):
        lengths = np.diff(bounds)
        # A null list has no values: it counts as no tokens, like its sample.
        lists = simulations[name].combine_chunks()
        starts, stops = (lists.offsets.to_numpy()[indices + end] for end in (0, 1))
        stops = np.where(is_out[is_made], starts, stops)
        if not np.array_equal(stops - starts, lengths[is_made]):
            raise ValueError(f"a simulation and its sample have different numbers of {name} tokens")
        flat = lists.values.to_numpy(zero_copy_only=False)
        parts = [flat[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        values = np.concatenate([np.empty(0, np.float16), *parts])
        if not is_made.all():
            padded = np.zeros(int(bounds[-1]), np.float16)
            padded[np.repeat(is_made, lengths)] = values
            values = padded
        sides.append(values)
    detected = np.full(len(is_made), np.nan)
    detected[is_made] = simulations["sample_prediction"].to_numpy()[indices]
    return Predicted(sides[0], sides[1], detected, is_made)
