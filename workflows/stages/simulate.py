"""Simulate: predict traces from explanations, on samples that the explainer never saw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import EXPLANATIONS, SIMULATIONS, read_table, write_table
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.simulate.control import ExplainedNeuron, other_neurons
from neuron_atlas.tasks.simulate.simulator import Capabilities, Simulator
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.failures import MAY_PASS_LATER, check_failures, count_transient
from neuron_atlas.workflows.run.neurons import (
    EvidenceFiles,
    NearMissFiles,
    NeuronPart,
    explained_identity,
    explained_parts,
)
from neuron_atlas.workflows.run.simulator import (
    CAPABILITIES,
    in_place,
    read_capabilities,
    simulator_needs,
)
from neuron_atlas.workflows.run.stage import (
    Files,
    Item,
    Stage,
    StageOutput,
    Step,
    Worker,
    reads_of_samples,
)
from neuron_atlas.workflows.run.store import write_json

Key = tuple[int, int]
_CONTENT_COLUMNS = [
    "layer",
    "neuron",
    "explanation",
    "explanation_layer",
    "explanation_neuron",
    "wording",
    "sample_id",
    "stratum",
    "purpose",
    "estimator",
    "status",
]
"""Columns without predictions that decide the artifact's content hash."""


def make_stage(
    explainer: str, *, is_one_of_several: bool, is_dry_run: bool, uses_clusters: bool
) -> Stage:
    """Return the stage that simulates the explanations of one explainer.

    is_one_of_several: the run has several explainers. is_dry_run: only estimate the calls.
    uses_clusters: see `reads_of_samples`.
    """
    key = explainer if is_one_of_several else ""
    needs = partial(simulator_needs, f"simulate/{key}" if key else "simulate")
    return Stage(
        "simulate",
        8,
        (*reads_of_samples(uses_clusters=uses_clusters), "evidence", "explain", "near_misses"),
        partial(_parameters, key),
        (
            Step("simulate", "", _probe_item, _probe, needs, is_live=True),
            Step(
                "simulate",
                "neurons",
                partial(_items, explainer, key, is_dry_run),
                _simulate,
                needs,
                should_retry=_has_transient_failures,
            ),
        ),
        _finish,
        prepare=_prepare,
        explainer=key,
        is_dry_run=is_dry_run,
    )


def _parameters(explainer: str, context: Context) -> Mapping[str, Any]:
    settings = context.settings.simulate
    simulator = settings.simulator
    loaded = {"weights": simulator.weights()} if simulator.loads_model else {}
    return {
        "simulator": identity(simulator),
        "wording": simulator.prompt_hash,
        "seed": settings.seed,
        "neurons": explained_identity(context, explainer),
        **loaded,
    }


def _prepare(context: Context) -> None:
    settings = context.settings.simulate
    if (servers := settings.own_servers) is not None:
        # No other output appears while a model is downloaded and loaded.
        logs = context.store.local / "servers"
        print_line(f"servers    start within {servers.start_timeout_s:,.0f} s; their logs: {logs}")


def _probe_item(context: Context, folder: Path) -> list[Item]:
    simulator = context.settings.simulate.simulator
    return [] if simulator.client is None else [Item("probe", 1, (CAPABILITIES,), (simulator,))]


def _probe(worker: Worker, simulator: Simulator) -> list[str]:
    """Probe the simulator's server and write its capabilities, if it has any and can answer now."""
    simulator, calls = in_place(worker, simulator)
    found = simulator.probe(calls)
    if found is None:
        has_capabilities = simulator.assumed_capabilities() is not None
        unknown = "simulate   estimator: not known yet: the server did not answer"
        return [unknown] if has_capabilities else []
    write_json(worker.folder / CAPABILITIES, asdict(found))
    return [f"simulate   estimator: {found.estimator}"]


def _items(
    explainer: str, key: str, is_dry_run: bool, context: Context, folder: Path
) -> list[Item]:
    settings = context.settings.simulate
    capabilities = (
        settings.simulator.assumed_capabilities() if is_dry_run else read_capabilities(folder)
    )
    explained = _explained_neurons(context, key)
    controls = other_neurons(list(explained.values()), settings.seed)
    evidence = EvidenceFiles.from_context(context, key)
    near_misses = NearMissFiles.from_context(context, key)
    items = []
    for part in explained_parts(context, key):
        neurons = [(part.layer, neuron) for neuron in part.neurons]
        items.append(
            Item(
                key=part.key,
                size=len(neurons),
                files=(part.file("simulations"),),
                inputs=(
                    settings.simulator,
                    capabilities,
                    explainer,
                    part,
                    evidence,
                    near_misses,
                    {neuron: explained[neuron] for neuron in neurons if neuron in explained},
                    {neuron: controls[neuron] for neuron in neurons if neuron in controls},
                ),
            )
        )
    return items


def _explained_neurons(context: Context, explainer: str) -> dict[Key, ExplainedNeuron]:
    columns = ["layer", "neuron", "type", "text", "status"]
    table = read_table(context.paths("explain", "explanations", explainer), EXPLANATIONS, columns)
    rows = table.filter(pc.equal(table["status"], "ok")).drop_columns("status").to_pylist()
    return {(row["layer"], row["neuron"]): ExplainedNeuron(**row) for row in rows}


def _simulate(
    worker: Worker,
    simulator: Simulator,
    capabilities: Capabilities | None,
    explainer: str,
    part: NeuronPart,
    files: EvidenceFiles,
    near_misses: NearMissFiles,
    explained: Mapping[Key, ExplainedNeuron],
    controls: Mapping[Key, ExplainedNeuron],
) -> None:
    """Write the simulations of a part, unless batch answers are pending."""
    from neuron_atlas.tasks.simulate.levels import neuron_levels
    from neuron_atlas.tasks.simulate.rows import simulate_neurons

    simulator, calls = in_place(worker, simulator)
    evidence = files.load(part, "explainer", "scorer", "calibration")
    strata = near_misses.load(part.layer, {key[1]: one.text for key, one in explained.items()})
    held_out = [
        replace(one, near_misses=strata[one.neuron].records) if one.neuron in strata else one
        for one in evidence["scorer"]
    ]
    calibration = evidence["calibration"]
    shown = evidence["explainer"] if simulator.compares_levels else []
    catalog = files.catalog([*held_out, *calibration, *shown])
    levels = neuron_levels({key: one.text for key, one in explained.items()}, shown, catalog)
    rows = simulate_neurons(
        simulator,
        explainer,
        held_out,
        calibration,
        explained,
        controls,
        catalog,
        calls,
        capabilities,
        levels,
    )
    if not pc.any(pc.equal(rows["status"], "pending")).as_py():
        (path,) = worker.paths
        write_table(rows, SIMULATIONS, path)


def _has_transient_failures(item: Item, folder: Path) -> bool:
    return count_transient([folder / name for name in item.files], SIMULATIONS) > 0


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    paths = [folder / name for name in files.get("simulations", ())]
    limit = context.settings.simulate.max_failed_share
    check_failures(paths, SIMULATIONS, "simulate", limit)
    return StageOutput(
        {"simulations": [path.name for path in paths]},
        content=_content(paths),
        about={MAY_PASS_LATER: count_transient(paths, SIMULATIONS)},
    )


def _content(paths: Sequence[Path]) -> str:
    """Return a hash of the predictions, which does not depend on retries."""
    digest = hashlib.sha256()
    for path in paths:
        table = read_table(path, SIMULATIONS)
        for name in _CONTENT_COLUMNS:
            column = table[name].combine_chunks()
            if pa.types.is_string(column.type):
                encoded = column.dictionary_encode()
                digest.update(json.dumps(encoded.dictionary.to_pylist()).encode())
                column = encoded.indices
            digest.update(_bytes(column))
        for name in ("visual", "text"):
            lists = table[name].combine_chunks()
            for values in (lists.value_lengths(), lists.flatten()):
                digest.update(_bytes(values))
        digest.update(_bytes(table["sample_prediction"].combine_chunks().fill_null(-1)))
    return digest.hexdigest()


def _bytes(values: pa.Array) -> bytes:
    return values.to_numpy(zero_copy_only=False).tobytes()
