"""Classify: the type of every neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    TRACES,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.location import remove_folder
from neuron_atlas.tasks.classify.conclude import conclude
from neuron_atlas.tasks.classify.rule import Rule, RuleWithTests
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import progress
from neuron_atlas.workflows.cluster.spread import result, spread
from neuron_atlas.workflows.run.stage import Context, Stage, Written, count_rows

_UNFINISHED = "without-q"


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"rule": identity(context.settings.classify.rule)}


def _run(context: Context, folder: Path) -> Written:
    layers = list(context.layers())
    captured = context.folder("capture")
    rule = context.settings.classify.rule
    waiting = [layer for layer in layers if not _is_finished(rule, layer, folder)]

    def submit(layer: int) -> ray.ObjectRef:
        return _classify_layer.remote(rule, captured, layer, folder)

    with progress("classify", len(layers), "layers", len(layers) - len(waiting)) as advance:
        for _ in spread(waiting, submit):
            advance(1)
    files = {"types": [layer_file("types", layer) for layer in layers]}
    if isinstance(rule, RuleWithTests):
        files["tested_types"] = [layer_file("tested_types", layer) for layer in layers]
        tested = [_without_q(folder, layer) for layer in layers]
        written = [folder / name for name in files["tested_types"]]
        result(_conclude.remote(rule, tested, written))
    return Written(files, count_rows(folder, files))


def _is_finished(rule: Rule, layer: int, folder: Path) -> bool:
    tested = not isinstance(rule, RuleWithTests) or _without_q(folder, layer).is_file()
    return tested and (folder / layer_file("types", layer)).is_file()


def _without_q(folder: Path, layer: int) -> Path:
    """Where a layer's tests wait for those of the other layers."""
    return folder / _UNFINISHED / layer_file("tested_types", layer)


@task()
def _classify_layer(rule: Rule, captured: Path, layer: int, folder: Path) -> None:
    if isinstance(rule, RuleWithTests):
        histograms = read_table(captured / layer_file("histograms", layer), HISTOGRAMS)
        write_table(rule.test(histograms), NEURON_TESTS, _without_q(folder, layer))
    traces = read_table(captured / layer_file("traces", layer), TRACES)
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    path = folder / layer_file("types", layer)
    write_table(rule.types(traces, moments), NEURON_TYPES, path)


@task()
def _conclude(rule: RuleWithTests, tested: Sequence[Path], written: Sequence[Path]) -> None:
    conclude(rule, tested, written)


def _tidy(folder: Path) -> None:
    """The tests with their q hold all that those without it held."""
    remove_folder(folder / _UNFINISHED)


STAGE = Stage("classify", 1, ("capture",), _parameters, _run, _tidy)
