"""How a stage that may ask a model works on its neurons: live or by batch, again where a failure
may pass, and with a failed run where too much failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import ray

from neuron_atlas.tasks.artifacts import TableSpec, read_table
from neuron_atlas.tasks.artifacts.location import present, remove_folder
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.workflows.cluster.progress import Advance
from neuron_atlas.workflows.models.calls import OpenCalls, open_calls
from neuron_atlas.workflows.run.errors import RunFailed
from neuron_atlas.workflows.run.neuron_parts import NeuronPart, cut_into_parts, work_on_parts
from neuron_atlas.workflows.run.stage import Context

LIVES = 20
"""Workers that a part may outlive: machines come and go in a run of days."""
Submit = Callable[[NeuronPart, Calls, Path | None], ray.ObjectRef]
"""Begins the work on a part, which writes its rows to the path unless answers are pending; None
writes nothing."""
_TRANSIENT = pa.array(["rate_limited", "timed_out", "budget", "failed"])
_NO_FAULT = pa.array(["ok", "no_evidence", "no_explanation", "no_samples", "no_control"])
_SPOOLED_AT_ONCE = 8192
"""Neurons whose requests lie on the disk at once."""


class AskingSettings(Protocol):
    """What `explain` and `simulate` are told alike."""

    @property
    def budget_usd(self) -> float | None: ...  # noqa: D102
    @property
    def mode(self) -> Literal["live", "batch"]: ...  # noqa: D102
    @property
    def max_failed_share(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Asking:
    """What a stage asks. spec: of the table that it writes, a file a part. asker: the explainer or
    simulator. neurons: their rows of `types`. begin: given what was opened to ask a model (None if
    it asks none), what works on parts. abreast: see `spread`."""

    stage: str
    spec: TableSpec
    asker: Any
    settings: AskingSettings
    neurons: pa.Table
    neurons_per_task: int
    begin: Callable[[OpenCalls | None], Submit]
    abreast: int | None = None

    @property
    def artifact(self) -> str:
        """The table's name."""
        return self.spec.name

    def parts(self) -> list[NeuronPart]:
        """All neurons, cut into what is worked on together."""
        return cut_into_parts(self.neurons, self.neurons_per_task)


def ask(asking: Asking, context: Context, folder: Path) -> list[Path]:
    """Have every part written into the folder, those anew that hold failures which may pass; the
    files. Raises Unusable and, for batches of an earlier run, WrongCall."""
    parts = asking.parts()
    for name in present(folder, [part.file(asking.artifact) for part in parts]):
        _reopen(folder / name, asking.spec)
    settings = asking.settings
    with open_calls(
        asking.asker, context, asking.stage, settings.budget_usd, settings.mode
    ) as calls:
        submit = asking.begin(calls)
        if calls is not None and settings.mode == "batch":
            names = _by_batch(asking, context, folder, parts, calls, submit)
        else:
            names = _live(asking, context, folder, parts, calls, submit)
    return [folder / name for name in names]


def count_transient(asking: Asking, written: Sequence[Path]) -> int:
    """Rows whose failure may pass."""
    rows = read_table(written, asking.spec, ["status"])
    return len(_that_are(rows, _TRANSIENT))


def check_failures(asking: Asking, written: Sequence[Path]) -> None:
    """Raise RunFailed where a larger share failed than is allowed."""
    rows = read_table(written, asking.spec, ["layer", "neuron", "status", "reason"])
    if not len(rows):
        return
    failed = rows.filter(pc.invert(pc.is_in(rows["status"], value_set=_NO_FAULT)))
    share, limit = len(failed) / len(rows), asking.settings.max_failed_share
    if share > limit:
        first = failed.slice(0, 1).to_pylist()[0]
        raise RunFailed(
            f"{share:.1%} of {len(rows):,} {asking.artifact} failed, and "
            f"{asking.stage}.max_failed_share is {limit:.1%}. The first: neuron {first['layer']}:"
            f"{first['neuron']}: {first['status']}: {first['reason']}. What was answered is kept; "
            "the same call asks again for the rest"
        )


def _live(
    asking: Asking,
    context: Context,
    folder: Path,
    parts: Sequence[NeuronPart],
    calls: OpenCalls | None,
    submit: Submit,
) -> list[str]:
    told = Calls() if calls is None else calls.live()

    def accompany(advance: Advance) -> Any:
        return nullcontext() if calls is None else calls.accompany(context, advance)

    return work_on_parts(
        asking.stage,
        asking.artifact,
        parts,
        folder,
        lambda part, path: submit(part, told, path),
        accompany,
        0.0 if calls is None else calls.ending_s,
        abreast=asking.abreast,
    )[asking.artifact]


def _by_batch(
    asking: Asking,
    context: Context,
    folder: Path,
    parts: Sequence[NeuronPart],
    calls: OpenCalls,
    submit: Submit,
) -> list[str]:
    """Collect what is not answered, hand it in, wait, and again until every part is written.

    It is handed in some parts at a time, for the pictures of all neurons would fill a disk.
    """
    spools = folder / "spools"

    def collect(part: NeuronPart, path: Path) -> ray.ObjectRef:
        return submit(part, calls.collecting(spools / f"{path.stem}.jsonl"), path)

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

    at_once = max(1, _SPOOLED_AT_ONCE // asking.neurons_per_task)
    while True:
        is_done = True
        calls.wait_for_batches(context)
        remove_folder(spools)  # Of a run that was killed while it collected.
        files = work_on_parts(
            asking.stage,
            asking.artifact,
            parts,
            folder,
            collect,
            accompany,
            at_once=at_once,
            after=hand_in,
        )
        if is_done:
            return files[asking.artifact]


def _reopen(path: Path, spec: TableSpec) -> None:
    """Remove a part with an outcome that may be better now: it is asked for again."""
    if len(_that_are(read_table(path, spec, ["status"]), _TRANSIENT)):
        path.unlink()


def _that_are(rows: pa.Table, statuses: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["status"], value_set=statuses))
