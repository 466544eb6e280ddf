"""Classify: the type of every neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from neuron_atlas.tasks.classify.conclude import conclude
from neuron_atlas.tasks.classify.rule import Rule, RuleWithTests
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker

_WITHOUT_Q = "without-q"
"""Where the tests of a layer wait for those of the other layers."""


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"rule": identity(context.settings.classify.rule)}


@dataclass(frozen=True)
class _Layer:
    rule: Rule
    captured: Path
    layer: int


def _layers(context: Context, folder: Path) -> list[Item]:
    rule = context.settings.classify.rule
    return [
        Item(
            key=f"layer-{layer:03d}",
            size=1,
            files=(layer_file("types", layer), *_tests(rule, layer)),
            inputs=_Layer(rule, context.folder("capture"), layer),
        )
        for layer in context.layers()
    ]


def _tests(rule: Rule, layer: int) -> list[str]:
    has_tests = isinstance(rule, RuleWithTests)
    return [f"{_WITHOUT_Q}/{layer_file('tested_types', layer)}"] if has_tests else []


def _classify(item: Item, folder: Path, worker: Worker) -> None:
    of: _Layer = item.inputs
    if isinstance(of.rule, RuleWithTests):
        (name,) = _tests(of.rule, of.layer)
        histograms = read_table(of.captured / layer_file("histograms", of.layer), HISTOGRAMS)
        write_table(of.rule.test(histograms), NEURON_TESTS, folder / name)
    traces = read_table(of.captured / layer_file("traces", of.layer), TRACES)
    moments = read_table(of.captured / layer_file("moments", of.layer), MOMENTS)
    types = of.rule.types(traces, moments)
    write_table(types, NEURON_TYPES, folder / layer_file("types", of.layer))


def _all_layers(context: Context, folder: Path) -> list[Item]:
    rule, layers = context.settings.classify.rule, context.layers()
    if not isinstance(rule, RuleWithTests):
        return []
    files = tuple(layer_file("tested_types", layer) for layer in layers)
    return [Item("false-discoveries", 1, files, rule)]


def _conclude(item: Item, folder: Path, worker: Worker) -> None:
    """Control false discoveries over all layers together."""
    without_q = [folder / _WITHOUT_Q / name for name in item.files]
    conclude(item.inputs, without_q, [folder / name for name in item.files])


STAGE = Stage(
    "classify",
    1,
    ("capture",),
    _parameters,
    (
        Step("classify", "layers", _layers, _classify),
        Step("classify", "", _all_layers, _conclude),
    ),
    temporary=(_WITHOUT_Q,),
)
