"""Simulate: predict traces from explanations, on samples that the explainer never saw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from neuron_atlas.tasks.artifacts import EXPLANATIONS, NEURON_TYPES, SIMULATIONS, read_table
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.simulate.control import Explained, other_neurons
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.simulator_pool import (
    SimulatorPool,
    loads_model,
    simulator_pool,
)
from neuron_atlas.workflows.cluster.spread import result
from neuron_atlas.workflows.models.asking import (
    LIVES,
    Asking,
    Submit,
    ask,
    check_failures,
    count_transient,
)
from neuron_atlas.workflows.models.calls import OpenCalls
from neuron_atlas.workflows.run.neuron_parts import NeuronPart, TaskInputs
from neuron_atlas.workflows.run.stage import ASK_AGAIN, Context, Stage, Written, count_rows

Key = tuple[int, int]
_STEADY = ["layer", "neuron", "claim", "claim_layer", "claim_neuron", "sample_id", "draw"]
_STEADY += ["purpose", "estimator", "status"]


def explained_parts(context: Context) -> list[NeuronPart]:
    """The neurons that were explained, cut as they were when they were explained."""
    return asking(context).parts()


def asking(
    context: Context, pool: SimulatorPool | None = None, *, is_rehearsal: bool = False
) -> Asking:
    """What is asked of the simulator. pool: where its model is kept, if it loads one. is_rehearsal:
    nothing will be sent."""
    settings = context.settings.simulate
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    keys = ["layer", "neuron"]
    known = read_table(context.paths("explain", "explanations"), EXPLANATIONS, keys)
    chosen = types.join(known, keys=keys, join_type="left semi")
    chosen = chosen.sort_by([(key, "ascending") for key in keys]).select(types.column_names)

    def begin(calls: OpenCalls | None) -> Submit:
        explained = _explained(context)
        controls = other_neurons(list(explained.values()), settings.seed)
        inputs = TaskInputs.of(context)
        simulator = settings.simulator
        if calls is not None:
            simulator = _assume(simulator) if is_rehearsal else _agree(simulator, calls)

        def submit(part: NeuronPart, told: Calls, path: Path | None) -> ray.ObjectRef:
            mine = [(part.layer, neuron) for neuron in part.neurons]
            arguments = (
                context.settings.explain.explainer.name,
                part,
                inputs,
                {key: explained[key] for key in mine if key in explained},
                {key: controls[key] for key in mine if key in controls},
                told,
                path,
            )
            if pool is not None:
                return pool.submit(simulate_part, *arguments)
            return _simulate_task.remote(simulator, *arguments)

        return submit

    return Asking(
        "simulate",
        SIMULATIONS,
        settings.simulator,
        settings,
        chosen,
        context.done["explain"].about["neurons_per_task"],
        begin,
        abreast=None if pool is None else pool.size,
    )


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings.simulate
    simulator: Any = settings.simulator
    loaded = {"weights": simulator.weights()} if loads_model(simulator) else {}
    return {
        "simulator": identity(simulator),
        "wording": simulator.wording,
        "seed": settings.seed,
        **loaded,
    }


def _run(context: Context, folder: Path) -> Written:
    with simulator_pool(context.settings.simulate.simulator, context.settings.cluster) as pool:
        about = asking(context, pool)
        written = ask(about, context, folder)
    check_failures(about, written)
    files = {"simulations": [path.name for path in written]}
    return Written(
        files,
        count_rows(folder, files),
        content=_content(written),
        about={ASK_AGAIN: count_transient(about, written)},
    )


def _agree(simulator: Any, calls: OpenCalls) -> Any:
    """The simulator once it has found out what its server can do, before all parts begin."""
    if not hasattr(simulator, "agree"):
        return simulator
    agreed = result(_agree_on_a_worker.remote(simulator, calls.live()))
    # One that could not is as it was: every part then finds out for itself, or says why it cannot.
    is_known = agreed != simulator
    said = agreed.estimator if is_known else "not known yet: the server did not answer"
    say(f"simulate   estimator: {said}")
    return agreed


def _assume(simulator: Any) -> Any:
    """The simulator as if it had found out; its requests then are as many and as long as any."""
    return simulator.assume() if hasattr(simulator, "agree") else simulator


def _explained(context: Context) -> dict[Key, Explained]:
    columns = ["layer", "neuron", "type", "text", "status"]
    table = read_table(context.paths("explain", "explanations"), EXPLANATIONS, columns)
    rows = table.filter(pc.equal(table["status"], "ok")).drop_columns("status").to_pylist()
    return {(row["layer"], row["neuron"]): Explained(**row) for row in rows}


def _content(written: Sequence[Path]) -> str:
    """What was predicted, however often it had to be asked for."""
    digest = hashlib.sha256()
    for path in written:
        table = read_table(path, SIMULATIONS)
        digest.update(json.dumps(table.select(_STEADY).to_pydict(), sort_keys=True).encode())
        for name in ("visual", "text"):
            lists = table[name].combine_chunks()
            for values in (lists.value_lengths(), lists.flatten()):
                digest.update(_bytes(values))
        digest.update(_bytes(table["detected"].combine_chunks().fill_null(-1)))
    return digest.hexdigest()


def _bytes(values: pa.Array) -> bytes:
    return values.to_numpy(zero_copy_only=False).tobytes()


@task(max_retries=LIVES)
def _agree_on_a_worker(simulator: Any, calls: Calls) -> Any:
    return simulator.agree(calls)


def simulate_part(
    simulator: Any,
    explainer: str,
    part: NeuronPart,
    inputs: TaskInputs,
    explained: Mapping[Key, Explained],
    controls: Mapping[Key, Explained],
    calls: Calls,
    path: Path | None,
) -> None:
    """Simulate a part by a simulator that is ready, in this process; see `Submit`."""
    from neuron_atlas.tasks.artifacts import write_table
    from neuron_atlas.tasks.simulate.rows import simulate_neurons

    held_out, calibration = (inputs.evidence(part, name) for name in ("scorer", "calibration"))
    catalog = inputs.catalog([*held_out, *calibration])
    table = simulate_neurons(
        simulator, explainer, held_out, calibration, explained, controls, catalog, calls
    )
    if path is not None and not pc.any(pc.equal(table["status"], "pending")).as_py():
        write_table(table, SIMULATIONS, path)


_simulate_task = task(max_retries=LIVES)(simulate_part)


STAGE = Stage(
    "simulate",
    3,
    ("samples", "describe", "capture", "classify", "explain"),
    _parameters,
    _run,
    per_explainer=True,
)
