"""Analyse: compute how neurons respond, and summarize the responses of each type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    MEANINGS,
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    PEAK_EMBEDDINGS,
    PEAK_PLACES,
    RESPONSES,
    TYPE_SUMMARIES,
    USABLE,
    WORDS,
    exemplars_spec,
    layer_file,
    read_table,
    row_count,
    write_table,
)
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.places import PLACES, embedding_items, open_places, places_file
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Work, Worker
from neuron_atlas.workflows.run.subject import needs_subject

_RANDOM = f"{PLACES}/random_places.{PEAK_PLACES.format}"


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


def _place_items(context: Context, folder: Path) -> list[Item]:
    captured, settings = context.folder("capture"), context.settings.analyse
    top_n = context.capture.top_n
    described = context.paths("describe", "descriptions")
    random = Item("random-patches", 1, (_RANDOM,), (_list_random_places, described, settings.seed))
    return [random] + [
        Item(
            key=f"places-layer-{layer:03d}",
            size=1,
            files=(places_file(layer),),
            inputs=(_list_seen_places, captured, layer, top_n, settings),
        )
        for layer in context.layers()
    ]


def _list_places(worker: Worker, list_places: Work, *inputs: Any) -> None:
    list_places(worker, *inputs)


def _list_random_places(worker: Worker, descriptions: Sequence[Path], seed: int) -> None:
    """Write the places of the random patches."""
    from neuron_atlas.tasks.analyse.seen import random_places
    from neuron_atlas.tasks.artifacts.places import places_table

    columns = ["sample_id", "n_visual", "status"]
    described = read_table(descriptions, DESCRIPTIONS, columns)
    usable = described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))
    ids, n_visual = (usable[name].to_numpy() for name in columns[:2])
    (path,) = worker.paths
    write_table(places_table(random_places(ids, n_visual, seed)), PEAK_PLACES, path)


def _list_seen_places(
    worker: Worker, captured: Path, layer: int, top_n: int, settings: AnalyseSettings
) -> None:
    """Write the places of one layer's strong visual exemplars."""
    from neuron_atlas.tasks.analyse.responses import seen_places
    from neuron_atlas.tasks.artifacts.places import places_table

    moments, ranked = _read_layer(captured, layer, top_n)
    (path,) = worker.paths
    write_table(places_table(seen_places(ranked, moments, settings)), PEAK_PLACES, path)


def _embedding_items(context: Context, folder: Path) -> list[Item]:
    """Return an item for each file of texts; none if no neuron is mostly visual."""
    seen = [folder / places_file(layer) for layer in context.layers()]
    if not any(map(row_count, seen)):
        return []
    return embedding_items(context, [*seen, folder / _RANDOM], prefix="embed-")


def _embed(
    worker: Worker,
    descriptions: Path,
    places: Sequence[Path],
    samples: Sequence[Path],
    source: Source,
    batch_size: int,
    threads: int | None,
) -> None:
    """Write the subject's embeddings at the places on the samples of one file of texts."""
    from neuron_atlas.tasks.artifacts.places import embeddings_table
    from neuron_atlas.tasks.subject.embed_places import embed_places

    found, catalog = open_places(descriptions, places, samples, source)
    subject = worker.loaded.subject
    embeddings = embed_places(
        subject, found, catalog, batch_size, threads, worker.count, STAGE.name
    )
    (path,) = worker.paths
    write_table(embeddings_table(found, embeddings), PEAK_EMBEDDINGS, path)


def _layers(context: Context, folder: Path) -> list[Item]:
    captured, settings = context.folder("capture"), context.settings.analyse
    embeddings = [folder / one.files[0] for one in _embedding_items(context, folder)]
    words = [folder / _words_of(path) for path in context.paths("describe", "descriptions")]
    top_n = context.capture.top_n
    return [
        Item(
            key=f"layer-{layer:03d}",
            size=1,
            files=(layer_file("responses", layer), layer_file(MEANINGS, layer)),
            inputs=(
                captured,
                words,
                layer,
                top_n,
                folder / places_file(layer),
                folder / _RANDOM,
                embeddings,
                settings,
            ),
        )
        for layer in context.layers()
    ]


def _analyse(
    worker: Worker,
    captured: Path,
    words: Sequence[Path],
    layer: int,
    top_n: int,
    places: Path,
    random: Path,
    embeddings: Sequence[Path],
    settings: AnalyseSettings,
) -> None:
    from neuron_atlas.tasks.analyse.responses import responses
    from neuron_atlas.tasks.analyse.seen import read_seen
    from neuron_atlas.tasks.analyse.words import build_lexicon

    moments, ranked = _read_layer(captured, layer, top_n)
    index = build_lexicon(read_table(words, WORDS))
    at = [read_table(path, PEAK_PLACES)["place"].to_numpy() for path in (places, random)]
    tables = responses(ranked, moments, index, read_seen(embeddings, *at), settings)
    for table, spec, path in zip(tables, (RESPONSES, MEANINGS), worker.paths, strict=True):
        write_table(table, spec, path)


def _read_layer(captured: Path, layer: int, top_n: int) -> tuple[pa.Table, pa.Table]:
    """Return the `moments` and the `exemplars` of a layer."""
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    return moments, read_table(captured / layer_file("exemplars", layer), exemplars_spec(top_n))


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
    5,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    (
        Step("analyse", "", _texts, _list_words),
        Step("analyse", "", _place_items, _list_places),
        Step("analyse", "samples", _embedding_items, _embed, needs_subject),
        Step("analyse", "layers", _layers, _analyse),
        Step("analyse", "", _all_layers, _summarize),
    ),
    temporary=(PLACES,),
)
