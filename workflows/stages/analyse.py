"""Analyse: how the neurons respond, and what that says of the types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.artifacts import (
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    RESPONSES,
    TYPE_AGREEMENT,
    TYPE_CONCEPTS,
    TYPE_FAVOURITES,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_SHARES,
    WORDS,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import progress
from neuron_atlas.workflows.cluster.spread import result, spread
from neuron_atlas.workflows.run.stage import Context, Stage, Written, count_rows

SUMMARIES = (
    TYPE_SHARES,
    TYPE_AGREEMENT,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_CONCEPTS,
    TYPE_FAVOURITES,
)


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"analyse": identity(context.settings.analyse)}


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.analyse
    layers = list(context.layers())
    captured = context.folder("capture")
    words = folder / "words.parquet"
    paths = {layer: folder / layer_file("responses", layer) for layer in layers}
    waiting = [layer for layer in layers if not paths[layer].is_file()]
    with progress("analyse", len(layers), "layers", len(layers) - len(waiting)) as advance:
        if not words.is_file():
            listed = context.paths("samples", "samples")
            result(_list_words.remote(listed, context.paths("describe", "descriptions"), words))

        def submit(layer: int) -> ray.ObjectRef:
            return _analyse_layer.remote(captured, layer, words, settings, paths[layer])

        for _ in spread(waiting, submit):
            advance(1)
    typed = context.done["classify"].files
    tested = context.paths("classify", "tested_types") if "tested_types" in typed else None
    types = context.paths("classify", "types")
    result(_summarise.remote(types, tested, list(paths.values()), settings, folder))
    files = {
        "words": [words.name],
        "responses": [path.name for path in paths.values()],
        **{spec.name: [f"{spec.name}.parquet"] for spec in SUMMARIES},
    }
    return Written(files, count_rows(folder, files))


@task()
def _list_words(samples: Sequence[Path], descriptions: Sequence[Path], path: Path) -> None:
    from neuron_atlas.tasks.analyse.words import list_words
    from neuron_atlas.tasks.samples.catalog import open_catalog

    write_table(list_words(open_catalog(samples, descriptions)), WORDS, path)


@task()
def _analyse_layer(
    captured: Path, layer: int, words: Path, settings: AnalyseSettings, path: Path
) -> None:
    from neuron_atlas.tasks.analyse.responses import responses
    from neuron_atlas.tasks.analyse.words import lexicon

    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    traces = captured / layer_file("traces", layer)
    known = lexicon(read_table(words, WORDS))
    write_table(responses(traces, moments, known, settings), RESPONSES, path)


@task()
def _summarise(
    types: Sequence[Path],
    tested: Sequence[Path] | None,
    responses: Sequence[Path],
    settings: AnalyseSettings,
    folder: Path,
) -> None:
    from neuron_atlas.tasks.analyse.summary import summarise

    tables = summarise(
        read_table(types, NEURON_TYPES),
        None if tested is None else read_table(tested, NEURON_TESTS),
        read_table(responses, RESPONSES),
        settings.favourites,
    )
    for spec, table in tables:
        write_table(table, spec, folder / f"{spec.name}.parquet")


STAGE = Stage("analyse", 1, ("samples", "describe", "capture", "classify"), _parameters, _run)
