"""What the stages that ask a model do around their tasks, which are stood in for here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import EXPLANATIONS, NEURON_TYPES, write_table
from neuron_atlas.tasks.models.journal import Tally
from neuron_atlas.workflows.models import asking, calls
from neuron_atlas.workflows.models.asking import Asking
from neuron_atlas.workflows.run import neuron_parts
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall
from neuron_atlas.workflows.run.neuron_parts import cut_into_parts
from neuron_atlas.workflows.run.stage import Context
from neuron_atlas.workflows.run.store import Store
from neuron_atlas.workflows.stages import explain
from neuron_atlas.workflows.tracking.tracker import Tracker
from tests.workflows.runs import runs_in, settings


def types(count: int) -> pa.Table:
    rows = [
        {"layer": 0, "neuron": neuron, "type": "visual", "n_exemplars": 3, "scale": 1.0}
        for neuron in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=NEURON_TYPES.schema)


def explanations(count: int, status: str) -> pa.Table:
    blank = {field.name: _blank(field) for field in EXPLANATIONS.schema}
    rows = [
        blank | {"layer": 0, "neuron": neuron, "explainer": "gpt4o", "status": status}
        for neuron in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)


def _blank(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        return []
    return "" if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type) else 0


def context_of(folder: Path, *overrides: str) -> Context:
    return Context(
        settings("explain=gpt4o", *overrides),
        Store(folder),
        None,  # type: ignore[arg-type]
        lambda: None,
    )


def asking_about(neurons: pa.Table) -> Asking:
    return Asking("explain", EXPLANATIONS, None, None, neurons, 2, lambda calls: None)  # type: ignore[arg-type]


def test_a_batch_run_keeps_the_requests_of_some_parts_at_a_time_on_the_disk(monkeypatch, tmp_path):
    """Ten parts of two neurons, and room for the requests of six neurons."""
    parts = cut_into_parts(types(20), 2)
    spools, handed_in = tmp_path / "spools", []
    answered: set[str] = set()

    def work(part: Any, spool: Path, path: Path) -> None:
        if spool.stem in answered:
            path.touch()
            return
        spool.parent.mkdir(exist_ok=True)
        spool.touch()

    def hand_in(client: Any, prices: Any, waiting: list[Path]) -> None:
        handed_in.append([path.stem for path in waiting])
        answered.update(path.stem for path in waiting)

    monkeypatch.setattr(asking, "_SPOOLED_AT_ONCE", 6)
    monkeypatch.setattr(
        neuron_parts, "spread", lambda items, submit, *_: [(item, submit(item)) for item in items]
    )
    told = SimpleNamespace(
        client=None,
        prices=None,
        journal=SimpleNamespace(hand_in=hand_in),
        collecting=lambda spool: spool,
        accompany=lambda context, advance: nullcontext(),
        wait_for_batches=lambda context: None,
    )
    spools.mkdir()
    (spools / "of-a-killed-run.jsonl").touch()

    about = asking_about(types(20))
    names = asking._by_batch(about, context_of(tmp_path), tmp_path, parts, told, work)

    assert [len(names) for names in handed_in] == [3, 3, 3, 1]
    spooled = [name for some in handed_in for name in some]
    assert "of-a-killed-run" not in spooled
    assert len(set(spooled)) == 10
    assert all((tmp_path / name).is_file() for name in names)
    assert not spools.exists()


def test_only_batches_to_its_own_model_keep_a_live_run_from_asking(monkeypatch, tmp_path):
    @contextmanager
    def journal(*_: Any) -> Iterator[Any]:
        def batches(client: Any) -> int:
            return 2 if client.model == "gpt-4o" else 0

        yield SimpleNamespace(batches=batches, tally_now=Tally)

    monkeypatch.setattr(calls, "forget_limits", lambda: None)
    monkeypatch.setattr(calls, "open_journal", journal)
    monkeypatch.setattr(
        calls, "RemoteLimits", lambda account, limits: SimpleNamespace(agree=lambda: limits)
    )
    context = context_of(tmp_path)
    mine = context.settings.explain.explainer
    other = replace(mine, client=replace(mine.client, model="another"))
    with pytest.raises(WrongCall, match="2 batches of an earlier run have not been fetched"):
        calls.open_calls(mine, context, "explain", None).__enter__()
    with calls.open_calls(other, context, "explain", None) as opened:
        assert opened is not None


def test_the_explanations_of_a_run_with_too_many_failures_are_logged_all_the_same(
    monkeypatch, tmp_path
):
    context = context_of(tmp_path, "explain.max_failed_share=0.5")
    several = replace(context, by_explainer={})
    (apart,) = [found for _, found in several.each_explainer()]

    def ask(about: Any, context: Context, folder: Path) -> list[Path]:
        write_table(explanations(4, "malformed"), EXPLANATIONS, folder / "part.parquet")
        return [folder / "part.parquet"]

    about = replace(asking_about(types(4)), settings=apart.settings.explain)
    monkeypatch.setattr(explain, "asking", lambda context: about)
    monkeypatch.setattr(explain, "ask", ask)
    with pytest.raises(RunFailed, match=r"100\.0% of 4 explanations failed"):
        explain._run(apart, tmp_path)

    Tracker(several.settings, tmp_path, {}).finish(several, "FAILED", "too many")
    client, (run,) = runs_in(tmp_path / "mlflow.db")
    logged = Path(client.download_artifacts(run.info.run_id, "explanations.json"))
    assert logged.read_text(encoding="utf-8").count('"malformed"') == 4
