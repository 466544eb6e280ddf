"""Lay predictions beside what truly happened: the same samples for every claim about a neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tasks.artifacts import CLAIMS
from tasks.evidence import Evidence, Excitation, Purpose

GROUP = ["layer", "neuron", "explainer", "simulator"]
"""What names one explanation, as simulated by one simulator."""


@dataclass(frozen=True)
class Predicted:
    """One claim's predictions on an Aligned's samples.

    visual, text: float16 [tokens], those of a sample one after the other. detected: float64
    [samples], NaN where the simulator gave none. made: bool [samples], whether there is a
    prediction. covers: bool [visual and text, samples], False where it leaves the tokens of a role
    out, of which the sample has some. Where either is False, 0 is predicted and means nothing.
    """

    visual: np.ndarray
    text: np.ndarray
    detected: np.ndarray
    made: np.ndarray
    covers: np.ndarray


@dataclass(frozen=True)
class Aligned:
    """Samples of explanations, one after the other, those of one explanation together.

    group: int64 [samples], the explanation's place, ascending. excitations: what truly happened.
    visual, text: the same float32 [tokens] in one array; offsets: where samples begin in them,
    int64 [samples + 1] each. predicted: by claim.
    """

    group: np.ndarray
    exemplar: np.ndarray
    excitations: Sequence[Excitation]
    visual: np.ndarray
    text: np.ndarray
    offsets: tuple[np.ndarray, np.ndarray]
    predicted: Mapping[str, Predicted]


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
    ones. A claim with fewer than `least` predictions for an explanation is left out instead.
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
    truths = {
        (neuron.layer, neuron.neuron, seen.sample_id): seen
        for neuron in evidence
        for seen in (*neuron.exemplars, *neuron.random)
    }
    excitations = [truths[key] for key in chosen.select("layer", "neuron", "sample_id").rows()]
    traces = [[getattr(seen, role) for seen in excitations] for role in ("visual", "text")]
    offsets = tuple(np.cumsum([0, *map(len, trace)]) for trace in traces)
    visual, text = (np.concatenate([np.empty(0, np.float32), *trace]) for trace in traces)
    return Aligned(
        group=chosen["group"].to_numpy().astype(np.int64),
        exemplar=(chosen["draw"] == "exemplar").to_numpy(),
        excitations=excitations,
        visual=visual,
        text=text,
        offsets=(offsets[0], offsets[1]),
        predicted={
            claim: _take(simulations, chosen["row" if claim == CLAIMS[0] else claim], offsets)
            for claim in claims
        },
    )


def _of(fine: pl.DataFrame, claim: str) -> pl.DataFrame:
    return fine.filter(pl.col("claim") == claim)


def _take(simulations: pa.Table, rows: pl.Series, offsets: tuple[np.ndarray, ...]) -> Predicted:
    """The predictions of some rows; 0 where there is no row, or no list of a role in it."""
    made = rows.is_not_null().to_numpy()
    places = pa.array(rows.drop_nulls().to_numpy())
    chosen = simulations.select(["visual", "text", "detected"]).take(places)
    sides, covers = [], np.ones((2, len(made)), dtype=bool)
    for role, (name, bounds) in enumerate(zip(("visual", "text"), offsets, strict=True)):
        column = chosen[name].combine_chunks()
        lengths = np.diff(bounds)
        told = column.is_valid().to_numpy(zero_copy_only=False)
        given = pc.fill_null(column.value_lengths(), 0).to_numpy(zero_copy_only=False)
        if not np.array_equal(given, np.where(told, lengths[made], 0)):
            raise ValueError(f"a simulation has not as many {name} tokens as its sample")
        values = column.flatten().to_numpy(zero_copy_only=False)
        there = made.copy()
        there[made] = told
        if not there.all():
            whole = np.zeros(int(bounds[-1]), np.float16)
            whole[np.repeat(there, lengths)] = values
            values = whole
        sides.append(values)
        covers[role, made] = told | (lengths[made] == 0)
    detected = np.full(len(made), np.nan)
    detected[made] = chosen["detected"].to_numpy()
    return Predicted(sides[0], sides[1], detected, made, covers)
