"""Explain: say in words what each chosen neuron responds to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from tasks.artifacts import EXPLANATIONS, NEURON_TYPES, read_table
from tasks.artifacts.location import present, remove_folder
from tasks.explain.select import choose_neurons
from tasks.llm.calls import Calls
from tasks.settings import identity
from workflows.calls import OpenCalls, open_calls
from workflows.errors import RunFailed, WrongCall
from workflows.neuron_parts import NeuronPart, TaskInputs, cut_into_parts, work_on_parts
from workflows.places import task
from workflows.progress import Advance
from workflows.stage import ASK_AGAIN, Context, Stage, Written, count_rows

_TRANSIENT = pa.array(["rate_limited", "timed_out", "budget", "failed"])
_NO_FAULT = pa.array(["ok", "no_evidence"])
_LIVES = 20
"""Workers that a part may outlive: machines come and go in a run of days."""
_SPOOLED_AT_ONCE = 8192
"""Neurons whose requests lie on the disk at once."""
_UNSTEADY = {"seconds", "attempts", "cost", "tokens_in", "tokens_out", "reason"}
"""Columns that no later stage reads, and that differ between runs of the same."""


def chosen_neurons(context: Context) -> pa.Table:
    """The rows of `types` of the neurons that are to be explained. Raises WrongCall."""
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    try:
        return choose_neurons(types, context.settings.explain.neurons)
    except ValueError as error:
        raise WrongCall(f"explain.neurons.{error}") from error


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings.explain
    return {
        "explainer": identity(settings.explainer),
        "wording": settings.explainer.wording,
        "neurons": identity(settings.neurons),
    }


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.explain
    parts = cut_into_parts(chosen_neurons(context), settings.neurons_per_task)
    for name in present(folder, [part.file("explanations") for part in parts]):
        _reopen(folder / name)
    with open_calls(
        settings.explainer, context, "explain", settings.budget_usd, settings.mode
    ) as calls:
        if calls is not None and settings.mode == "batch":
            files = _by_batch(context, folder, parts, calls)
        else:
            files = _live(context, folder, parts, calls)
    written = [folder / name for name in files["explanations"]]
    explanations = read_table(written, EXPLANATIONS)
    try:
        _check_failures(explanations, settings.max_failed_share)
    except RunFailed:
        context.unfinished.extend(written)
        raise
    return Written(
        files,
        count_rows(folder, files),
        content=_content(explanations),
        about={
            "neurons_per_task": settings.neurons_per_task,
            ASK_AGAIN: len(_that_are(explanations, _TRANSIENT)),
        },
    )


def _live(
    context: Context, folder: Path, parts: Sequence[NeuronPart], calls: OpenCalls | None
) -> dict[str, list[str]]:
    inputs = TaskInputs.of(context)
    explainer = context.settings.explain.explainer
    told = Calls() if calls is None else calls.live()

    def submit(part: NeuronPart, path: Path) -> ray.ObjectRef:
        return explain_part.remote(explainer, part, inputs, told, path)

    def accompany(advance: Advance) -> Any:
        return nullcontext() if calls is None else calls.accompany(context, advance)

    ending_s = 0.0 if calls is None else calls.ending_s
    return work_on_parts("explain", "explanations", parts, folder, submit, accompany, ending_s)


def _by_batch(
    context: Context, folder: Path, parts: Sequence[NeuronPart], calls: OpenCalls
) -> dict[str, list[str]]:
    """Collect what is not answered, hand it in, wait, and again until every part is written.

    It is handed in some parts at a time, for the pictures of all neurons would fill a disk.
    """
    inputs = TaskInputs.of(context)
    explainer = context.settings.explain.explainer
    spools = folder / "spools"

    def submit(part: NeuronPart, path: Path) -> ray.ObjectRef:
        spool = spools / f"{path.stem}.jsonl"
        return explain_part.remote(explainer, part, inputs, calls.collecting(spool), path)

    def accompany(advance: Advance) -> Any:
        return calls.accompany(context, advance)

    is_done = False

    def hand_in() -> None:
        nonlocal is_done
        waiting = sorted(spools.glob("*.jsonl"))
        if waiting:
            is_done = False
            calls.journal.hand_in(calls.client, calls.prices, waiting)
        remove_folder(spools)

    at_once = max(1, _SPOOLED_AT_ONCE // context.settings.explain.neurons_per_task)
    while True:
        is_done = True
        calls.wait_for_batches(context)
        remove_folder(spools)  # Of a run that was killed while it collected.
        files = work_on_parts(
            "explain",
            "explanations",
            parts,
            folder,
            submit,
            accompany,
            at_once=at_once,
            after=hand_in,
        )
        if is_done:
            return files


def _reopen(path: Path) -> None:
    """Remove a part with an outcome that may be better now: it is asked for again."""
    if len(_that_are(read_table(path, EXPLANATIONS, ["status"]), _TRANSIENT)):
        path.unlink()


def _that_are(explanations: pa.Table, statuses: pa.Array) -> pa.Table:
    return explanations.filter(pc.is_in(explanations["status"], value_set=statuses))


def _content(explanations: pa.Table) -> str:
    """What was explained, however often it had to be asked for and whatever that took."""
    columns = [name for name in EXPLANATIONS.schema.names if name not in _UNSTEADY]
    digest = hashlib.sha256()
    for batch in explanations.select(columns).to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return digest.hexdigest()


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


@task(max_retries=_LIVES)
def explain_part(
    explainer: Any, part: NeuronPart, inputs: TaskInputs, calls: Calls, path: Path | None
) -> None:
    """Explain a part and write its rows, unless answers are pending; None writes nothing."""
    from tasks.artifacts import write_table
    from tasks.explain.rows import explanation_rows

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
