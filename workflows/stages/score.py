"""Score: measure how well each explanation predicts its neuron, compared with its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    SCORE_AGGREGATES,
    SCORES,
    SIMULATIONS,
    read_table,
    write_table,
)
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.neurons import (
    EvidenceFiles,
    NearMissFiles,
    NeuronPart,
    explained_identity,
    explained_parts,
)
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker

_AGGREGATES = "score_aggregates.parquet"


def make_stage(explainer: str, *, is_one_of_several: bool) -> Stage:
    """Return the stage that scores the explanations of one explainer."""
    key = explainer if is_one_of_several else ""
    return Stage(
        "score",
        8,
        ("samples", "describe", "evidence", "explain", "near_misses", "simulate"),
        partial(_parameters, key),
        (
            Step("score", "neurons", partial(_parts, key), _score),
            Step("score", "", partial(_all_neurons, key), _aggregate),
        ),
        explainer=key,
    )


def _parameters(explainer: str, context: Context) -> Mapping[str, Any]:
    return {
        "score": identity(context.settings.score),
        "neurons": explained_identity(context, explainer),
    }


def _parts(explainer: str, context: Context, folder: Path) -> list[Item]:
    evidence = EvidenceFiles.from_context(context, explainer)
    near_misses = NearMissFiles.from_context(context, explainer)
    files = {
        path.name: path
        for stage, artifact in (("explain", "explanations"), ("simulate", "simulations"))
        for path in context.paths(stage, artifact, explainer)
    }
    return [
        Item(
            key=part.key,
            size=len(part.neurons),
            files=(part.file("scores"),),
            inputs=(
                part,
                evidence,
                near_misses,
                files[part.file("explanations")],
                files[part.file("simulations")],
                context.settings.score,
            ),
        )
        for part in explained_parts(context, explainer)
    ]


def _score(
    worker: Worker,
    part: NeuronPart,
    files: EvidenceFiles,
    near_misses: NearMissFiles,
    explanations: Path,
    simulations: Path,
    settings: ScoreSettings,
) -> None:
    from neuron_atlas.tasks.score.score import score_neurons

    columns = ["layer", "neuron", "explainer", "exemplar_ids", "text", "status"]
    rows = read_table(explanations, EXPLANATIONS, columns).to_pylist()
    seen = {_key(row): frozenset(row["exemplar_ids"]) for row in rows}
    texts_of = {row["neuron"]: row["text"] for row in rows if row["status"] == "ok"}
    strata_of = near_misses.load(part.layer, texts_of)
    strata = {_key(row): strata_of[row["neuron"]] for row in rows if row["neuron"] in strata_of}
    evidence = files.load(part, "explainer", "calibration", "scorer")
    evidence["scorer"] = [
        replace(one, near_misses=strata_of[one.neuron].records) if one.neuron in strata_of else one
        for one in evidence["scorer"]
    ]
    with_texts = [*evidence["explainer"], *evidence["scorer"]]
    texts = {key: one.tokens for key, one in files.texts(with_texts).samples.items()}
    simulated = read_table(simulations, SIMULATIONS)
    (path,) = worker.paths
    scores = score_neurons(simulated, evidence, texts, seen, settings, strata)
    write_table(scores, SCORES, path)


def _key(row: Mapping[str, Any]) -> tuple[int, int, str]:
    return row["layer"], row["neuron"], row["explainer"]


def _all_neurons(explainer: str, context: Context, folder: Path) -> list[Item]:
    scores = [folder / part.file("scores") for part in explained_parts(context, explainer)]
    return [Item("aggregates", 1, (_AGGREGATES,), (scores, context.settings.score))]


def _aggregate(worker: Worker, scores: Sequence[Path], settings: ScoreSettings) -> None:
    """Fill p_contest, p and q into the files of scores, and write the aggregates.

    Both need all neurons.
    """
    from neuron_atlas.tasks.score.aggregate import aggregate_scores
    from neuron_atlas.tasks.score.significance import add_significance_to_files

    (path,) = worker.paths
    write_table(
        aggregate_scores(add_significance_to_files(scores), settings), SCORE_AGGREGATES, path
    )
