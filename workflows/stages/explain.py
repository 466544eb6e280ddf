"""Explain: say in words what each chosen neuron responds to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from neuron_atlas.tasks.artifacts import EXPLANATIONS, NEURON_TYPES, read_table
from neuron_atlas.tasks.explain.select import choose_neurons
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.models.asking import (
    LIVES,
    Asking,
    Submit,
    ask,
    check_failures,
    count_transient,
)
from neuron_atlas.workflows.models.calls import OpenCalls
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall
from neuron_atlas.workflows.run.neuron_parts import NeuronPart, TaskInputs
from neuron_atlas.workflows.run.stage import ASK_AGAIN, Context, Stage, Written, count_rows

_UNSTEADY = {"seconds", "attempts", "cost", "tokens_in", "tokens_out", "reason"}
"""Columns that no later stage reads, and that differ between runs of the same."""


def asking(context: Context) -> Asking:
    """What is asked of the explainer. Raises WrongCall."""
    settings = context.settings.explain
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    try:
        chosen = choose_neurons(types, settings.neurons)
    except ValueError as error:
        raise WrongCall(f"explain.neurons.{error}") from error

    def begin(_: OpenCalls | None) -> Submit:
        inputs = TaskInputs.of(context)

        def submit(part: NeuronPart, calls: Calls, path: Path | None) -> ray.ObjectRef:
            return explain_part.remote(settings.explainer, part, inputs, calls, path)

        return submit

    return Asking(
        "explain",
        EXPLANATIONS,
        settings.explainer,
        settings,
        chosen,
        settings.neurons_per_task,
        begin,
    )


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings.explain
    return {
        "explainer": identity(settings.explainer),
        "wording": settings.explainer.wording,
        "neurons": identity(settings.neurons),
    }


def _run(context: Context, folder: Path) -> Written:
    context.settings.simulate.check()  # For want of its key, explaining might be paid in vain.
    about = asking(context)
    written = ask(about, context, folder)
    try:
        check_failures(about, written)
    except RunFailed:
        context.unfinished.extend(written)
        raise
    files = {"explanations": [path.name for path in written]}
    return Written(
        files,
        count_rows(folder, files),
        content=_content(read_table(written, EXPLANATIONS)),
        about={
            "neurons_per_task": about.neurons_per_task,
            ASK_AGAIN: count_transient(about, written),
        },
    )


def _content(explanations: pa.Table) -> str:
    """What was explained, however often it had to be asked for and whatever that took."""
    columns = [name for name in EXPLANATIONS.schema.names if name not in _UNSTEADY]
    digest = hashlib.sha256()
    for batch in explanations.select(columns).to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return digest.hexdigest()


@task(max_retries=LIVES)
def explain_part(
    explainer: Any, part: NeuronPart, inputs: TaskInputs, calls: Calls, path: Path | None
) -> None:
    """See `Submit`."""
    from neuron_atlas.tasks.artifacts import write_table
    from neuron_atlas.tasks.explain.rows import explanation_rows

    evidence = inputs.evidence(part, "explainer")
    catalog = inputs.catalog(evidence)
    explanations = explainer.explain(evidence, catalog, calls)
    if path is not None and not any(one.status == "pending" for one in explanations):
        write_table(explanation_rows(explainer.name, evidence, explanations), EXPLANATIONS, path)


STAGE = Stage(
    "explain",
    2,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    _run,
    per_explainer=True,
)
