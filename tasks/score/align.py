"""Lay predictions beside what truly happened: the same samples for every claim about a neuron."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import CLAIMS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, Purpose

GROUP = ["layer", "neuron", "explainer", "simulator"]
"""What names one explanation, as simulated by one simulator."""
_ROLES = ("visual", "text")


@dataclass(frozen=True)
class Predicted:
    """One claim's predictions on an Aligned's samples.

    visual, text: float16 [tokens], those of a sample one after the other. detected: float64
    [samples], NaN where the simulator gave none. made: bool [samples]; where False, 0 is predicted
    and means nothing.
    """

    visual: np.ndarray
    text: np.ndarray
    detected: np.ndarray
    made: np.ndarray


@dataclass(frozen=True)
class Aligned:
    """Samples of explanations, one after the other, those of one explanation together.

    group: int64 [samples], the explanation's place, ascending. excitations: what truly happened.
    visual, text: the same float32 [tokens] in one array; offsets: where samples begin in them,
    int64 [samples + 1] each. predicted: by claim. left_out: bool [visual and text, samples],
    whether the simulator says nothing of a role's tokens for this explanation; its samples are
    then as if they had none of them. unpaired: int64 [samples], the explanations of the exemplars,
    and of the random samples, that are none of these for want of samples of the other kind.
    """

    group: np.ndarray
    exemplar: np.ndarray
    excitations: Sequence[ActivationRecord]
    visual: np.ndarray
    text: np.ndarray
    offsets: tuple[np.ndarray, np.ndarray]
    predicted: Mapping[str, Predicted]
    left_out: np.ndarray
    unpaired: tuple[np.ndarray, np.ndarray]


def align(
    simulations: pa.Table,
    rows: pl.DataFrame,
    purpose: Purpose,
    claims: Sequence[str],
    evidence: Sequence[Evidence],
    least: int,
) -> Aligned:
    """The samples of one purpose, predicted for the own claim and every other of `claims`.

    rows: the rows of `simulations` with their place as `row` and that of their explanation as
    `group`. A sample counts where every claim has a prediction, so that all are scored on the same
    ones. A claim with fewer than `least` predictions for an explanation is left out instead. Of an
    explanation's exemplars and random samples, as many of each count: where predictions of one kind
    failed, those of the other are spread over what there is of it.
    """
    fine = rows.filter(pl.col("status") == "ok", pl.col("purpose") == purpose)
    chosen = _of(fine, "own")
    for claim in claims[1:]:
        other = _of(fine, claim).filter(pl.len().over("group") >= least)
        given = chosen["group"].is_in(other["group"].unique().implode())
        other = other.select("group", "sample_id", pl.col("row").alias(claim))
        chosen = (
            chosen.with_columns(given.alias("given"))
            .join(other, on=["group", "sample_id"], how="left", maintain_order="left")
            .filter(pl.col(claim).is_not_null() | ~pl.col("given"))
            .drop("given")
        )
    chosen, unpaired = _one_to_one(chosen)
    truths = {
        (neuron.layer, neuron.neuron, seen.sample_id): seen
        for neuron in evidence
        for seen in (*neuron.exemplars, *neuron.random)
    }
    excitations = [truths[key] for key in chosen.select("layer", "neuron", "sample_id").rows()]
    group = chosen["group"].to_numpy().astype(np.int64)
    rows_of = {claim: chosen["row" if claim == CLAIMS[0] else claim] for claim in claims}
    left_out = _left_out(simulations, rows_of.values(), excitations, group)
    excitations = [_without(*one) for one in zip(excitations, *left_out.tolist(), strict=True)]
    traces = [[getattr(seen, role) for seen in excitations] for role in _ROLES]
    offsets = tuple(np.cumsum([0, *map(len, trace)]) for trace in traces)
    visual, text = (np.concatenate([np.empty(0, np.float32), *trace]) for trace in traces)
    return Aligned(
        group=group,
        exemplar=(chosen["draw"] == "exemplar").to_numpy(),
        excitations=excitations,
        visual=visual,
        text=text,
        offsets=(offsets[0], offsets[1]),
        predicted={
            claim: _take(simulations, places, offsets, left_out)
            for claim, places in rows_of.items()
        },
        left_out=left_out,
        unpaired=unpaired,
    )


def _of(fine: pl.DataFrame, claim: str) -> pl.DataFrame:
    return fine.filter(pl.col("claim") == claim)


def _one_to_one(chosen: pl.DataFrame) -> tuple[pl.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """The samples that count, and see `Aligned.unpaired`."""
    kind = ["group", "draw"]
    is_exemplar = pl.col("draw") == "exemplar"
    count = pl.min_horizontal(is_exemplar.sum().over("group"), (~is_exemplar).sum().over("group"))
    place, there = pl.int_range(pl.len()).over(kind), pl.len().over(kind).cast(pl.Int64)
    steps = [reached * count.cast(pl.Int64) // there for reached in (place, place + 1)]
    chosen = chosen.with_columns((steps[0] < steps[1]).alias("counts"))
    spare = chosen.filter(~pl.col("counts"))
    unpaired = [spare.filter(which)["group"].to_numpy() for which in (is_exemplar, ~is_exemplar)]
    counting = chosen.filter("counts").drop("counts")
    return counting, (unpaired[0].astype(np.int64), unpaired[1].astype(np.int64))


def _left_out(
    simulations: pa.Table,
    claims: Collection[pl.Series],
    excitations: Sequence[ActivationRecord],
    group: np.ndarray,
) -> np.ndarray:
    """See Aligned. Where tokens of a role are left out of one sample or claim, they are left out of
    all of the explanation: else its claims would be scored on other tokens than each other."""
    left_out = np.zeros((2, len(group)), dtype=bool)
    for role, name in enumerate(_ROLES):
        is_null = simulations[name].is_null().to_numpy()
        if not is_null.any():
            continue
        has_tokens = np.array([len(getattr(seen, name)) > 0 for seen in excitations], dtype=bool)
        for rows in claims:
            made = rows.is_not_null().to_numpy()
            left_out[role, made] |= is_null[rows.drop_nulls().to_numpy()] & has_tokens[made]
        left_out[role] = np.isin(group, group[left_out[role]])
    return left_out


def _without(seen: ActivationRecord, is_visual_out: bool, is_text_out: bool) -> ActivationRecord:
    if is_visual_out:
        seen = replace(seen, visual=seen.visual[:0])
    return replace(seen, text=seen.text[:0]) if is_text_out else seen


def _take(
    simulations: pa.Table,
    rows: pl.Series,
    offsets: tuple[np.ndarray, ...],
    left_out: np.ndarray,
) -> Predicted:
    """The predictions of some rows; 0 where there is no row."""
    made = rows.is_not_null().to_numpy()
    places = pa.array(rows.drop_nulls().to_numpy())
    chosen = simulations.select(["visual", "text", "detected"]).take(places)
    sides = []
    for name, bounds, is_out in zip(_ROLES, offsets, left_out, strict=True):
        column = chosen[name].combine_chunks()
        if is_out.any():  # A list that is null has no tokens, as its sample has none then.
            column = pc.if_else(pa.array(is_out[made]), pa.scalar(None, column.type), column)
        lengths = np.diff(bounds)
        given = pc.fill_null(column.value_lengths(), 0).to_numpy(zero_copy_only=False)
        if not np.array_equal(given, lengths[made]):
            raise ValueError(f"a simulation has not as many {name} tokens as its sample")
        values = column.flatten().to_numpy(zero_copy_only=False)
        if not made.all():
            whole = np.zeros(int(bounds[-1]), np.float16)
            whole[np.repeat(made, lengths)] = values
            values = whole
        sides.append(values)
    detected = np.full(len(made), np.nan)
    detected[made] = chosen["detected"].to_numpy()
    return Predicted(sides[0], sides[1], detected, made)
