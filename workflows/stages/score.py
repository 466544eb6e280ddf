"""Score: how far each explanation predicts its neuron, beside its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import ray

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    SCORE_AGGREGATES,
    SCORES,
    SIMULATIONS,
    read_table,
    write_table,
)
from neuron_atlas.tasks.evidence.evidence import Purpose
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.spread import result
from neuron_atlas.workflows.run.neuron_parts import NeuronPart, TaskInputs, work_on_parts
from neuron_atlas.workflows.run.stage import Context, Stage, Written, count_rows
from neuron_atlas.workflows.stages.simulate import explained_parts


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"score": identity(context.settings.score)}


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.score
    inputs = TaskInputs.of(context)
    explanations = context.folder("explain")
    simulations = context.folder("simulate")

    def submit(part: NeuronPart, path: Path) -> ray.ObjectRef:
        return _score_part.remote(
            part,
            inputs,
            explanations / part.file("explanations"),
            simulations / part.file("simulations"),
            settings,
            path,
        )

    files = work_on_parts("score", "scores", explained_parts(context), folder, submit)
    result(
        _gather.remote([folder / name for name in files["scores"]], settings, folder / _GATHERED)
    )
    files |= {"score_aggregates": [_GATHERED]}
    return Written(files, count_rows(folder, files))


_GATHERED = "score_aggregates.parquet"


@task()
def _score_part(
    part: NeuronPart,
    inputs: TaskInputs,
    explanations: Path,
    simulations: Path,
    settings: ScoreSettings,
    path: Path,
) -> None:
    from neuron_atlas.tasks.score.score import score_neurons

    columns = ["layer", "neuron", "explainer", "exemplar_ids"]
    seen = {
        (row["layer"], row["neuron"], row["explainer"]): frozenset(row["exemplar_ids"])
        for row in read_table(explanations, EXPLANATIONS, columns).to_pylist()
    }
    evidence = {purpose: inputs.evidence(part, purpose) for purpose in get_args(Purpose)}
    shown = [neuron for purpose in ("explainer", "scorer") for neuron in evidence[purpose]]
    texts = {key: sample.tokens for key, sample in inputs.catalog(shown).samples.items()}
    simulated = read_table(simulations, SIMULATIONS)
    write_table(score_neurons(simulated, evidence, texts, seen, settings), SCORES, path)


@task()
def _gather(scores: Sequence[Path], settings: ScoreSettings, path: Path) -> None:
    """What needs all neurons: p and q in the files of scores, and the table of aggregates."""
    from neuron_atlas.tasks.score.aggregate import aggregate_scores
    from neuron_atlas.tasks.score.significance import judge_files

    write_table(aggregate_scores(judge_files(scores), settings), SCORE_AGGREGATES, path)


STAGE = Stage(
    "score",
    3,
    ("samples", "describe", "capture", "classify", "explain", "simulate"),
    _parameters,
    _run,
    per_explainer=True,
)
