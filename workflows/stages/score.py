"""Score: how far each explanation predicts its neuron, beside its control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from tasks.artifacts import EXPLANATIONS, SCORES, SIMULATIONS, read_table, write_table
from tasks.score.settings import ScoreSettings
from tasks.settings import identity
from workflows.neuron_parts import NeuronPart, TaskInputs, work_on_parts
from workflows.stage import Context, Stage, Written, count_rows
from workflows.stages.simulate import explained_parts


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


STAGE = Stage(
    "score",
    1,
    ("samples", "capture", "classify", "explain", "simulate"),
    _parameters,
    _run,
    per_explainer=True,
)
