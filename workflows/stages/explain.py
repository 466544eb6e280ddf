"""Explain: say in words what each chosen neuron responds to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from tasks.artifacts import EXPLANATIONS, NEURON_TYPES, read_table
from tasks.explain.select import choose_neurons
from tasks.settings import identity
from workflows.errors import RunFailed, WrongCall
from workflows.journal import RemoteJournal, open_journal
from workflows.neuron_parts import NeuronPart, TaskInputs, cut_into_parts, work_on_parts
from workflows.stage import Context, Stage, Written, count_rows

_TRANSIENT = pa.array(["rate_limited", "timed_out", "failed"])
_NO_FAULT = pa.array(["ok", "no_evidence"])


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings.explain
    return {
        "explainer": identity(settings.explainer),
        "wording": settings.explainer.wording,
        "neurons": identity(settings.neurons),
    }


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.explain
    inputs = TaskInputs.of(context)
    with open_journal(settings.explainer, context.store.out) as journal:

        def submit(part: NeuronPart, path: Path) -> ray.ObjectRef:
            return _explain_part.remote(settings.explainer, part, inputs, journal, path)

        parts = _chosen_parts(context)
        files = work_on_parts("explain", "explanations", parts, folder, submit, _is_finished)
    _check_failures(
        read_table([folder / name for name in files["explanations"]], EXPLANATIONS),
        settings.max_failed_share,
    )
    return Written(
        files,
        count_rows(folder, files),
        about={"neurons_per_task": settings.neurons_per_task},
    )


def _chosen_parts(context: Context) -> list[NeuronPart]:
    settings = context.settings.explain
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    try:
        chosen = choose_neurons(types, settings.neurons)
    except ValueError as error:
        raise WrongCall(f"explain.neurons.{error}") from error
    return cut_into_parts(chosen, settings.neurons_per_task)


def _is_finished(path: Path) -> bool:
    """A part with an outcome that may be better next time is asked for again."""
    if not path.is_file():
        return False
    statuses = read_table(path, EXPLANATIONS, ["status"])["status"]
    return not pc.any(pc.is_in(statuses, value_set=_TRANSIENT)).as_py()


def _check_failures(explanations: pa.Table, limit: float) -> None:
    if not len(explanations):
        return
    failed = explanations.filter(pc.invert(pc.is_in(explanations["status"], value_set=_NO_FAULT)))
    share = len(failed) / len(explanations)
    if share > limit:
        first = failed.slice(0, 1).to_pylist()[0]
        raise RunFailed(
            f"{share:.1%} of {len(explanations):,} explanations failed, and "
            f"explain.max_failed_share is {limit:.1%}. The first: neuron {first['layer']}:"
            f"{first['neuron']}: {first['status']}: {first['reason']}. What was answered is kept; "
            "the same call asks again for the rest"
        )


@ray.remote(max_retries=3)
def _explain_part(
    explainer: Any, part: NeuronPart, inputs: TaskInputs, journal: RemoteJournal, path: Path
) -> None:
    from tasks.artifacts import write_table
    from tasks.explain.rows import explanation_rows

    evidence = inputs.evidence(part, "explainer")
    catalog = inputs.catalog(evidence)
    explanations = explainer.explain(evidence, catalog, journal)
    write_table(explanation_rows(explainer.name, evidence, explanations), EXPLANATIONS, path)


STAGE = Stage(
    "explain",
    2,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    _run,
    per_explainer=True,
)
