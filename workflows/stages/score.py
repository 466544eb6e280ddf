"""Score: how far each explanation predicts its neuron, next to its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from neuron_atlas.workflows.run.neurons import EvidenceFiles, NeuronPart, explained_parts
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker

_AGGREGATES = "score_aggregates.parquet"


def stage_of(explainer: str, *, is_one_of_several: bool) -> Stage:
    """The stage for the explanations of one explainer."""
    key = explainer if is_one_of_several else ""
    return Stage(
        "score",
        3,
        ("samples", "describe", "capture", "classify", "explain", "simulate"),
        _parameters,
        (
            Step("score", "neurons", partial(_parts, key), _score),
            Step("score", "", partial(_all_neurons, key), _aggregate),
        ),
        explainer=key,
    )


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"score": identity(context.settings.score)}


@dataclass(frozen=True)
class _Part:
    neurons: NeuronPart
    evidence: EvidenceFiles
    explanations: Path
    simulations: Path
    settings: ScoreSettings


def _parts(explainer: str, context: Context, folder: Path) -> list[Item]:
    evidence = EvidenceFiles.of(context)
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
            inputs=_Part(
                part,
                evidence,
                files[part.file("explanations")],
                files[part.file("simulations")],
                context.settings.score,
            ),
        )
        for part in explained_parts(context, explainer)
    ]


def _score(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.score.score import score_neurons

    part: _Part = item.inputs
    columns = ["layer", "neuron", "explainer", "exemplar_ids"]
    seen = {
        (row["layer"], row["neuron"], row["explainer"]): frozenset(row["exemplar_ids"])
        for row in read_table(part.explanations, EXPLANATIONS, columns).to_pylist()
    }
    evidence = part.evidence.load(part.neurons)
    shown = [*evidence["explainer"], *evidence["scorer"]]
    texts = {key: one.tokens for key, one in part.evidence.catalog(shown).samples.items()}
    simulated = read_table(part.simulations, SIMULATIONS)
    rows = score_neurons(simulated, evidence, texts, seen, part.settings)
    write_table(rows, SCORES, folder / part.neurons.file("scores"))


@dataclass(frozen=True)
class _AllNeurons:
    scores: Sequence[str]
    settings: ScoreSettings


def _all_neurons(explainer: str, context: Context, folder: Path) -> list[Item]:
    scores = [part.file("scores") for part in explained_parts(context, explainer)]
    inputs = _AllNeurons(scores, context.settings.score)
    return [Item("aggregates", 1, (_AGGREGATES,), inputs)]


def _aggregate(item: Item, folder: Path, worker: Worker) -> None:
    """Write what needs all neurons: p and q in the files of scores, and the aggregates."""
    from neuron_atlas.tasks.score.aggregate import aggregate_scores
    from neuron_atlas.tasks.score.significance import judge_files

    of: _AllNeurons = item.inputs
    judged = judge_files([folder / name for name in of.scores])
    write_table(aggregate_scores(judged, of.settings), SCORE_AGGREGATES, folder / _AGGREGATES)
