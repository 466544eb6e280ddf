"""Analyse: compute how neurons respond, and summarize the responses of each type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.artifacts import (
    MEANINGS,
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    RESPONSES,
    TYPE_SUMMARIES,
    WORDS,
    exemplars_spec,
    layer_file,
    read_table,
    row_count,
    write_table,
)
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"analyse": identity(context.settings.analyse)}


def _texts(context: Context, folder: Path) -> list[Item]:
    """Return an item for each file of texts."""
    return [
        Item(path.stem, row_count(path), (_words_of(path),), (path,))
        for path in context.paths("describe", "descriptions")
    ]


def _words_of(descriptions: Path) -> str:
    return descriptions.name.replace("descriptions", "words", 1)


def _list_words(worker: Worker, descriptions: Path) -> None:
    from neuron_atlas.tasks.analyse.words import list_words
    from neuron_atlas.tasks.samples.catalog import open_texts

    (path,) = worker.paths
    write_table(list_words(open_texts([descriptions])), WORDS, path)


def _layers(context: Context, folder: Path) -> list[Item]:
    captured, settings = context.folder("capture"), context.settings.analyse
    words = [folder / _words_of(path) for path in context.paths("describe", "descriptions")]
    top_n = context.capture.top_n
    return [
        Item(
            key=f"layer-{layer:03d}",
            size=1,
            files=(layer_file("responses", layer), layer_file(MEANINGS, layer)),
            inputs=(captured, words, layer, top_n, settings),
        )
        for layer in context.layers()
    ]


def _analyse(
    worker: Worker,
    captured: Path,
    words: Sequence[Path],
    layer: int,
    top_n: int,
    settings: AnalyseSettings,
) -> None:
    from neuron_atlas.tasks.analyse.responses import responses
    from neuron_atlas.tasks.analyse.words import build_lexicon

    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    ranked = read_table(captured / layer_file("exemplars", layer), exemplars_spec(top_n))
    index = build_lexicon(read_table(words, WORDS))
    tables = responses(ranked, moments, index, settings)
    for table, spec, path in zip(tables, (RESPONSES, MEANINGS), worker.paths, strict=True):
        write_table(table, spec, path)


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
    4,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    (
        Step("analyse", "", _texts, _list_words),
        Step("analyse", "layers", _layers, _analyse),
        Step("analyse", "", _all_layers, _summarize),
    ),
)
