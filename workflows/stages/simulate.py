"""Simulate: predict traces from explanations, on samples that the explainer never saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import ray

from tasks.artifacts import EXPLANATIONS, NEURON_TYPES, SIMULATIONS, read_table
from tasks.llm.calls import Calls
from tasks.settings import identity
from tasks.simulate.control import Explained, other_neurons
from workflows.neuron_parts import NeuronPart, TaskInputs, cut_into_parts, work_on_parts
from workflows.places import task
from workflows.stage import Context, Stage, Written, count_rows

Key = tuple[int, int]


def explained_parts(context: Context) -> list[NeuronPart]:
    """The neurons that were explained, cut as they were when they were explained."""
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    keys = ["layer", "neuron"]
    asked = read_table(context.paths("explain", "explanations"), EXPLANATIONS, keys)
    chosen = types.join(asked, keys=keys, join_type="left semi")
    chosen = chosen.sort_by([(key, "ascending") for key in keys]).select(types.column_names)
    return cut_into_parts(chosen, context.done["explain"].about["neurons_per_task"])


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings.simulate
    return {"simulator": identity(settings.simulator), "seed": settings.seed}


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings
    explained = _explained(context)
    controls = other_neurons(list(explained.values()), settings.simulate.seed)
    inputs = TaskInputs.of(context)

    def submit(part: NeuronPart, path: Path) -> ray.ObjectRef:
        keys = [(part.layer, neuron) for neuron in part.neurons]
        return _simulate_part.remote(
            settings.simulate.simulator,
            settings.explain.explainer.name,
            part,
            inputs,
            {key: explained[key] for key in keys if key in explained},
            {key: controls[key] for key in keys if key in controls},
            path,
        )

    parts = explained_parts(context)
    files = work_on_parts("simulate", "simulations", parts, folder, submit)
    return Written(files, count_rows(folder, files))


def _explained(context: Context) -> dict[Key, Explained]:
    columns = ["layer", "neuron", "type", "text", "status"]
    table = read_table(context.paths("explain", "explanations"), EXPLANATIONS, columns)
    rows = table.filter(pc.equal(table["status"], "ok")).drop_columns("status").to_pylist()
    return {(row["layer"], row["neuron"]): Explained(**row) for row in rows}


@task()
def _simulate_part(
    simulator: Any,
    explainer: str,
    part: NeuronPart,
    inputs: TaskInputs,
    explained: Mapping[Key, Explained],
    controls: Mapping[Key, Explained],
    path: Path,
) -> None:
    from tasks.artifacts import write_table
    from tasks.simulate.rows import simulate_neurons

    held_out, calibration = (inputs.evidence(part, name) for name in ("scorer", "calibration"))
    catalog = inputs.catalog([*held_out, *calibration])
    table = simulate_neurons(
        simulator, explainer, held_out, calibration, explained, controls, catalog, Calls()
    )
    write_table(table, SIMULATIONS, path)


STAGE = Stage(
    "simulate",
    2,
    ("samples", "describe", "capture", "classify", "explain"),
    _parameters,
    _run,
    per_explainer=True,
)
