"""Score: how far each explanation predicts its neuron, beside its control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from tasks.artifacts import EXPLANATIONS, SCORES, SIMULATIONS, read_table, write_table
from tasks.score.settings import ScoreSettings
from tasks.settings import identity
from workflows.cluster import spread
from workflows.neuron_parts import NeuronPart, TaskInputs
from workflows.progress import progress
from workflows.stage import Context, Stage, Written, count_rows
from workflows.stages.simulate import explained_parts


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"score": identity(context.settings.score)}


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.score
    inputs = TaskInputs.of(context)
    explanations = context.folder("explain")
    simulations = context.folder("simulate")
    parts = explained_parts(context)
    waiting = [part for part in parts if not (folder / part.file("scores")).is_file()]

    def submit(part: NeuronPart) -> ray.ObjectRef:
        return _score_part.remote(
            part,
            inputs,
            explanations / part.file("explanations"),
            simulations / part.file("simulations"),
            settings,
            folder / part.file("scores"),
        )

    total = sum(len(part.neurons) for part in parts)
    done = total - sum(len(part.neurons) for part in waiting)
    with progress("score", total, "neurons", done) as advance:
        for part, _ in spread(waiting, submit):
            advance(len(part.neurons))
    files = {"scores": [part.file("scores") for part in parts]}
    return Written(files, count_rows(folder, files))


@ray.remote(max_retries=3)
def _score_part(
    part: NeuronPart,
    inputs: TaskInputs,
    explanations: Path,
    simulations: Path,
    settings: ScoreSettings,
    path: Path,
) -> None:
    from tasks.score.score import score_neurons

    seen = {
        (row["layer"], row["neuron"]): frozenset(row["exemplar_ids"])
        for row in read_table(
            explanations, EXPLANATIONS, ["layer", "neuron", "exemplar_ids"]
        ).to_pylist()
    }
    simulated = read_table(simulations, SIMULATIONS)
    evidence = inputs.evidence(part, "scorer")
    write_table(score_neurons(simulated, evidence, seen, settings), SCORES, path)


STAGE = Stage("score", 1, ("capture", "classify", "explain", "simulate"), _parameters, _run)
