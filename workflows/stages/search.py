"""Search: give each neuron vectors from the subject's embeddings at its peaks, and find its nearest
neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    NEIGHBORS,
    PEAK_EMBEDDINGS,
    PEAK_PLACES,
    SEARCH_CENTERS,
    SEARCH_VECTORS,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.actor_pool import ActorResource, Placement, actor_count
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.places import (
    PLACES,
    embedding_items,
    embeddings_file,
    open_places,
    places_file,
)
from neuron_atlas.workflows.run.stage import (
    Files,
    Item,
    Needs,
    Stage,
    StageOutput,
    Step,
    Worker,
)
from neuron_atlas.workflows.run.subject import needs_subject

_CENTERS = f"{SEARCH_CENTERS.name}.parquet"


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings.search
    clip = {} if settings.model is None else {"clip": {"weights": settings.weights()}}
    return {"search": identity(settings), **clip}


def _needs(context: Context) -> Needs:
    """Return the needs of work on embeddings: the subject, or the CLIP model if there is one."""
    model = context.settings.search.model
    if model is None:
        return needs_subject(context)
    # Unlike a subject, it is never spread over several GPUs.
    one_gpu = partial(actor_count, gpus_per_actor=1)
    return Needs(ActorResource("clip", partial(_load_encoder, model), actors=one_gpu))


def _load_encoder(model: str, placement: Placement) -> Any:
    from neuron_atlas.tasks.search.encoder import load_encoder

    return load_encoder(model, placement.device, placement.threads)


def _place_items(context: Context, folder: Path) -> list[Item]:
    return [
        Item(
            key=f"places-layer-{layer:03d}",
            size=1,
            files=(places_file(layer),),
            inputs=(_exemplars(context, layer), context.settings.search.exemplars),
        )
        for layer in context.layers()
    ]


def _list_places(worker: Worker, exemplars: Path, n_exemplars: int) -> None:
    from neuron_atlas.tasks.artifacts.places import places_table
    from neuron_atlas.tasks.search.peaks import all_places

    (path,) = worker.paths
    write_table(places_table(all_places([exemplars], n_exemplars)), PEAK_PLACES, path)


def _embedding_items(context: Context, folder: Path) -> list[Item]:
    """Return an item for each file of texts."""
    places = [folder / places_file(layer) for layer in context.layers()]
    return embedding_items(context, places, further=(context.settings.search.model is not None,))


def _embed(
    worker: Worker,
    descriptions: Path,
    places: Sequence[Path],
    samples: Sequence[Path],
    source: Source,
    batch_size: int,
    threads: int | None,
    has_clip: bool,
) -> None:
    """Write the embeddings at the peaks on the samples of one file of texts."""
    from neuron_atlas.tasks.artifacts.places import embeddings_table
    from neuron_atlas.tasks.search.crops import embed_surroundings
    from neuron_atlas.tasks.subject.embed_places import embed_places

    (path,) = worker.paths
    found, catalog = open_places(descriptions, places, samples, source)
    if has_clip:
        embeddings = embed_surroundings(worker.loaded, found, catalog, batch_size, worker.count)
    else:
        embeddings = embed_places(
            worker.loaded.subject, found, catalog, batch_size, threads, worker.count
        )
    write_table(embeddings_table(found, embeddings), PEAK_EMBEDDINGS, path)


def _center_items(context: Context, folder: Path) -> list[Item]:
    return [Item("centers", 1, (_CENTERS,), (_all_embeddings(context, folder),))]


def _center(worker: Worker, embeddings: Sequence[Path]) -> None:
    from neuron_atlas.tasks.search.vectors import centers_of

    (path,) = worker.paths
    write_table(centers_of(embeddings), SEARCH_CENTERS, path)


def _vector_items(context: Context, folder: Path) -> list[Item]:
    embeddings = _all_embeddings(context, folder)
    n_exemplars = context.settings.search.exemplars
    return [
        Item(
            key=f"vectors-layer-{layer:03d}",
            size=1,
            files=(layer_file(SEARCH_VECTORS, layer),),
            inputs=(layer, _exemplars(context, layer), n_exemplars, embeddings, folder / _CENTERS),
        )
        for layer in context.layers()
    ]


def _average(
    worker: Worker,
    layer: int,
    exemplars: Path,
    n_exemplars: int,
    embeddings: Sequence[Path],
    centers: Path,
) -> None:
    from neuron_atlas.tasks.search.peaks import read_peaks
    from neuron_atlas.tasks.search.vectors import search_vectors

    peaks = read_peaks(exemplars, n_exemplars)
    table = search_vectors(layer, peaks, embeddings, read_table(centers, SEARCH_CENTERS))
    (path,) = worker.paths
    write_table(table, SEARCH_VECTORS, path)


def _neighbor_items(context: Context, folder: Path) -> list[Item]:
    vectors = [folder / layer_file(SEARCH_VECTORS, layer) for layer in context.layers()]
    return [
        Item(
            key=f"neighbors-layer-{layer:03d}",
            size=1,
            files=(layer_file(NEIGHBORS, layer),),
            inputs=(layer, vectors, context.settings.search.neighbors),
        )
        for layer in context.layers()
    ]


def _find_neighbors(worker: Worker, layer: int, vectors: Sequence[Path], count: int) -> None:
    from neuron_atlas.tasks.search.neighbors import neighbors_of_layer

    # The subject, or the CLIP model itself.
    device = getattr(worker.loaded, "subject", worker.loaded).device
    table = neighbors_of_layer(layer, vectors, count, device)
    (path,) = worker.paths
    write_table(table, NEIGHBORS, path)


def _exemplars(context: Context, layer: int) -> Path:
    return context.folder("capture") / layer_file("exemplars", layer)


def _all_embeddings(context: Context, folder: Path) -> list[Path]:
    return [folder / embeddings_file(path) for path in context.paths("describe", "descriptions")]


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    """Record where the CLIP model is, for later searches."""
    model = context.settings.search.model
    return StageOutput(files, about={} if model is None else {"model": model})


STAGE = Stage(
    "search",
    1,
    ("samples", "describe", "capture"),
    _parameters,
    (
        Step("search", "", _place_items, _list_places),
        Step("search", "samples", _embedding_items, _embed, _needs),
        Step("search", "", _center_items, _center),
        Step("search", "layers", _vector_items, _average),
        Step("search", "layers", _neighbor_items, _find_neighbors, _needs),
    ),
    _finish,
    temporary=(PLACES,),
)
