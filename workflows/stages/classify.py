"""Classify: the type of every neuron."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from tasks.artifacts import (
    MOMENTS,
    NEURON_TYPES,
    TRACES,
    layer_file,
    read_table,
    write_table,
)
from tasks.classify.paper import PaperRule
from tasks.settings import identity
from workflows.cluster import spread
from workflows.progress import progress
from workflows.stage import Context, Stage, Written, count_rows


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"rule": identity(context.settings.classify)}


def _run(context: Context, folder: Path) -> Written:
    layers = list(context.layers())
    captured = context.folder("capture")
    rule = context.settings.classify
    waiting = [layer for layer in layers if not (folder / layer_file("types", layer)).is_file()]

    def submit(layer: int) -> ray.ObjectRef:
        return _classify_layer.remote(rule, captured, layer, folder)

    with progress("classify", len(layers), "layers", len(layers) - len(waiting)) as advance:
        for _ in spread(waiting, submit):
            advance(1)
    files = {"types": [layer_file("types", layer) for layer in layers]}
    return Written(files, count_rows(folder, files))


@ray.remote(max_retries=3)
def _classify_layer(rule: PaperRule, captured: Path, layer: int, folder: Path) -> None:
    traces = read_table(captured / layer_file("traces", layer), TRACES)
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    path = folder / layer_file("types", layer)
    write_table(rule.types(traces, moments), NEURON_TYPES, path)


STAGE = Stage("classify", 1, ("capture",), _parameters, _run)
