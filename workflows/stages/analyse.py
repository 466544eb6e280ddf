"""Analyse: compute how neurons respond, and summarize the responses of each type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    exemplars_spec,
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


def _texts(context: Context, folder: Path) -> list[Item]:
    samples = context.paths("samples", "samples")
    return [Item("words", 1, (_WORDS,), (samples, context.paths("describe", "descriptions")))]


def _list_words(worker: Worker, samples: Sequence[Path], descriptions: Sequence[Path]) -> None:
    from neuron_atlas.tasks.analyse.words import list_words
    from neuron_atlas.tasks.samples.catalog import open_catalog

    write_table(list_words(open_catalog(samples, descriptions)), WORDS, worker.folder / _WORDS)


def _layers(context: Context, folder: Path) -> list[Item]:
    captured, settings = context.folder("capture"), context.settings.analyse
    top_n = context.settings.capture.top_n
    return [
        Item(
            f"layer-{layer:03d}",
            1,
            (layer_file("responses", layer),),
            (captured, layer, top_n, settings),
        )
        for layer in context.layers()
    ]


def _analyse(
    worker: Worker, captured: Path, layer: int, top_n: int, settings: AnalyseSettings
) -> None:
    from neuron_atlas.tasks.analyse.responses import responses
    from neuron_atlas.tasks.analyse.words import build_lexicon

    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    ranked = read_table(captured / layer_file("exemplars", layer), exemplars_spec(top_n))
    words = build_lexicon(read_table(worker.folder / _WORDS, WORDS))
    (path,) = worker.paths
    write_table(responses(ranked, moments, words, settings), RESPONSES, path)


def _all_layers(context: Context, folder: Path) -> list[Item]:
    is_tested = "tested_types" in context.done["classify"].files
    inputs = (
        context.paths("classify", "types"),
        context.paths("classify", "tested_types") if is_tested else None,
        [folder / layer_file("responses", layer) for layer in context.layers()],
        context.settings.analyse.top_words,
    )
    return [Item("summary", 1, tuple(f"{spec.name}.parquet" for spec in TYPE_SUMMARIES), inputs)]


def _summarize(
    worker: Worker,
    types: Sequence[Path],
    tested_types: Sequence[Path] | None,
    responses: Sequence[Path],
    top_words: int,
) -> None:
    from neuron_atlas.tasks.analyse.summary import summarize_types

    tables = summarize_types(
        read_table(types, NEURON_TYPES),
        None if tested_types is None else read_table(tested_types, NEURON_TESTS),
        read_table(responses, RESPONSES),
        top_words,
    )
    for spec, table in tables:
        write_table(table, spec, worker.folder / f"{spec.name}.parquet")


STAGE = Stage(
    "analyse",
    2,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    (
        Step("analyse", "", _texts, _list_words),
        Step("analyse", "layers", _layers, _analyse),
        Step("analyse", "", _all_layers, _summarize),
    ),
)
