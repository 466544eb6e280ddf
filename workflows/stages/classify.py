"""Classify: assign a type to every neuron."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    exemplars_spec,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.classify.decide import decide_types
from neuron_atlas.tasks.classify.rule import Rule, RuleWithTests
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.content import hash_rows
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker

_WITHOUT_Q = "without-q"
"""Folder for the tests of a layer until the q-values over all layers are computed."""


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"rule": identity(context.settings.classify.rule)}


def _layers(context: Context, folder: Path) -> list[Item]:
    rule = context.settings.classify.rule
    return [
        Item(
            key=f"layer-{layer:03d}",
            size=1,
            files=(layer_file("types", layer), *_tests(rule, layer)),
            inputs=(
                rule,
                context.folder("capture"),
                layer,
                context.capture.top_n,
            ),
        )
        for layer in context.layers()
    ]


def _tests(rule: Rule, layer: int) -> list[str]:
    has_tests = isinstance(rule, RuleWithTests)
    return [f"{_WITHOUT_Q}/{layer_file('tested_types', layer)}"] if has_tests else []


def _classify(worker: Worker, rule: Rule, captured: Path, layer: int, top_n: int) -> None:
    types, *tests = worker.paths
    if isinstance(rule, RuleWithTests):
        histograms = read_table(captured / layer_file("histograms", layer), HISTOGRAMS)
        write_table(rule.test(histograms), NEURON_TESTS, tests[0])
    ranked = read_table(captured / layer_file("exemplars", layer), exemplars_spec(top_n))
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    write_table(rule.types(ranked, moments), NEURON_TYPES, types)


def _all_layers(context: Context, folder: Path) -> list[Item]:
    rule, layers = context.settings.classify.rule, context.layers()
    if not isinstance(rule, RuleWithTests):
        return []
    files = tuple(layer_file("tested_types", layer) for layer in layers)
    return [Item("false-discoveries", 1, files, (rule,))]


def _conclude(worker: Worker, rule: RuleWithTests) -> None:
    """Control the false discovery rate over all layers together."""
    without_q = [worker.folder / _WITHOUT_Q / path.name for path in worker.paths]
    decide_types(rule, without_q, worker.paths)


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    """Hash the rows, because another rule may give every neuron the same type."""
    tables = (
        read_table(folder / name, spec)
        for spec in (NEURON_TYPES, NEURON_TESTS)
        for name in files.get(spec.name, ())
    )
    return StageOutput(files, content=hash_rows(tables))


STAGE = Stage(
    "classify",
    3,
    ("capture",),
    _parameters,
    (
        Step("classify", "layers", _layers, _classify),
        Step("classify", "", _all_layers, _conclude),
    ),
    _finish,
    temporary=(_WITHOUT_Q,),
)
