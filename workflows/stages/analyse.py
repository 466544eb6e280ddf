"""Analyse: how the neurons respond, and what that says of the types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.artifacts import (
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    RESPONSES,
    TYPE_SUMMARIES,
    WORDS,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker

_WORDS = "words.parquet"


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"analyse": identity(context.settings.analyse)}


@dataclass(frozen=True)
class _Texts:
    samples: Sequence[Path]
    descriptions: Sequence[Path]


def _texts(context: Context, folder: Path) -> list[Item]:
    inputs = _Texts(context.paths("samples", "samples"), context.paths("describe", "descriptions"))
    return [Item("words", 1, (_WORDS,), inputs)]


def _list_words(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.analyse.words import list_words
    from neuron_atlas.tasks.samples.catalog import open_catalog

    texts: _Texts = item.inputs
    catalog = open_catalog(texts.samples, texts.descriptions)
    write_table(list_words(catalog), WORDS, folder / _WORDS)


@dataclass(frozen=True)
class _Layer:
    captured: Path
    layer: int
    settings: AnalyseSettings


def _layers(context: Context, folder: Path) -> list[Item]:
    captured, settings = context.folder("capture"), context.settings.analyse
    return [
        Item(
            key=f"layer-{layer:03d}",
            size=1,
            files=(layer_file("responses", layer),),
            inputs=_Layer(captured, layer, settings),
        )
        for layer in context.layers()
    ]


def _analyse(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.analyse.responses import responses
    from neuron_atlas.tasks.analyse.words import lexicon

    of: _Layer = item.inputs
    moments = read_table(of.captured / layer_file("moments", of.layer), MOMENTS)
    traces = of.captured / layer_file("traces", of.layer)
    words = lexicon(read_table(folder / _WORDS, WORDS))
    (name,) = item.files
    write_table(responses(traces, moments, words, of.settings), RESPONSES, folder / name)


@dataclass(frozen=True)
class _AllLayers:
    types: Sequence[Path]
    tested_types: Sequence[Path] | None
    responses: Sequence[str]
    favourites: int


def _all_layers(context: Context, folder: Path) -> list[Item]:
    is_tested = "tested_types" in context.done["classify"].files
    inputs = _AllLayers(
        types=context.paths("classify", "types"),
        tested_types=context.paths("classify", "tested_types") if is_tested else None,
        responses=[layer_file("responses", layer) for layer in context.layers()],
        favourites=context.settings.analyse.favourites,
    )
    return [Item("summary", 1, tuple(f"{spec.name}.parquet" for spec in TYPE_SUMMARIES), inputs)]


def _summarise(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.analyse.summary import summarise

    of: _AllLayers = item.inputs
    tables = summarise(
        read_table(of.types, NEURON_TYPES),
        None if of.tested_types is None else read_table(of.tested_types, NEURON_TESTS),
        read_table([folder / name for name in of.responses], RESPONSES),
        of.favourites,
    )
    for spec, table in tables:
        write_table(table, spec, folder / f"{spec.name}.parquet")


STAGE = Stage(
    "analyse",
    1,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    (
        Step("analyse", "", _texts, _list_words),
        Step("analyse", "layers", _layers, _analyse),
        Step("analyse", "", _all_layers, _summarise),
    ),
)
