"""Find neurons by words, by another neuron, or by an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from PIL import Image

from neuron_atlas.tasks.artifacts import SEARCH_CENTERS, read_table
from neuron_atlas.tasks.search.errors import SearchError
from neuron_atlas.tasks.search.match_words import match_explanations, match_texts, query_words
from neuron_atlas.tasks.search.peaks import SEARCHED_ROLES

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas
    from neuron_atlas.tasks.subject.subject import Subject

By = Literal["explanations", "texts", "tokens", "clip"]
_MODES = ("explanations", "texts", "tokens", "clip")
_KEY = ["layer", "neuron"]
_FUSED = 60
"""Constant of reciprocal rank fusion (Cormack et al. 2009)."""


def search_atlas(
    atlas: Atlas,
    words: str | None = None,
    *,
    like: tuple[int, int] | None = None,
    image: str | Path | Image.Image | None = None,
    by: By | None = None,
    role: str | None = None,
    count: int = 20,
    model: str | None = None,
    device: str | None = None,
) -> pl.DataFrame:
    """Return the neurons that match best; see `Atlas.search`."""
    if sum(part is not None for part in (words, like, image)) != 1:
        raise SearchError("give one of words, like= (a layer and neuron) and image=")
    if words is not None:
        found = _by_words(atlas, words, by, role, model, device)
    elif like is not None:
        found = _by_neuron(atlas, like, role)
    else:
        assert image is not None
        found = _by_image(atlas, image, model, device)
    best = found.sort(["match", *_KEY], descending=[True, False, False]).head(count)
    return _with_explanations(atlas, best)


def _by_words(
    atlas: Atlas,
    words: str,
    by: By | None,
    role: str | None,
    model: str | None,
    device: str | None,
) -> pl.DataFrame:
    wanted = query_words(words)
    if not wanted:
        raise SearchError(f"there is no word in {words!r}")
    if by not in (None, *_MODES):
        raise SearchError(f"by={by!r}: choose {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    if role not in (None, *SEARCHED_ROLES):
        raise SearchError(f"role={role!r}: choose {' or '.join(SEARCHED_ROLES)}")
    has_clip = bool(atlas.run.parameter("search", "clip"))
    matches: dict[str, pl.DataFrame] = {}
    if by in (None, "explanations") and "explanations" in atlas.tables:
        matches["explanations"] = match_explanations(atlas.explanations, wanted)
    if by in (None, "texts") and "words" in atlas.tables:
        exemplars = atlas.run.paths("exemplars")
        matches["texts"] = match_texts(atlas.words, exemplars, wanted)
    if by == "clip" and not has_clip:
        raise SearchError(f"the run {atlas.run.name} has no CLIP model; set search.model")
    if has_clip and by in (None, "clip"):
        matches["clip"] = _match_clip(atlas, words, role, model, device)
    if by == "tokens" and has_clip:
        raise SearchError('the vectors of this run are of a CLIP model; search by="clip"')
    if by == "tokens":
        matches["tokens"] = _match_tokens(atlas, words, model, device)
    if not matches:
        raise SearchError(f"the run {atlas.run.name} has no table to search words in")
    return _fused(matches)


def _fused(matches: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Join the matches of some modes by reciprocal rank fusion.

    matches: rows of layer, neuron and match by mode. A neuron that a mode did not find has null.
    """
    if len(matches) == 1:
        return next(iter(matches.values())).filter(pl.col("match") > 0)
    joined: pl.DataFrame | None = None
    for name, found in matches.items():
        column = found.filter(pl.col("match") > 0).rename({"match": name})
        joined = (
            column
            if joined is None
            else joined.join(column, on=_KEY, how="full", coalesce=True, maintain_order="left")
        )
    assert joined is not None
    parts = [
        (1 / (_FUSED + pl.col(name).rank("min", descending=True))).fill_null(0.0)
        for name in matches
    ]
    fused = joined.with_columns(pl.sum_horizontal(parts).alias("match"))
    return fused.select(*_KEY, "match", *matches)


def _by_neuron(atlas: Atlas, like: tuple[int, int], role: str | None) -> pl.DataFrame:
    _require(atlas)
    from neuron_atlas.tasks.search.neighbors import read_vectors

    layer, neuron = like
    atlas.neuron(layer, neuron)  # Raises NeuronNotFoundError.
    chosen = (pl.col("layer") == layer) & (pl.col("neuron") == neuron)
    own = atlas.search_vectors.filter(chosen).select("role", "n").sort("n", descending=True)
    roles = own.collect()["role"].to_list()
    if not roles or (role is not None and role not in roles):
        raise SearchError(
            f"no exemplar of the neuron {layer}:{neuron} peaks in the {role or 'image or text'}"
        )
    role = role or roles[0]
    layers, neurons, vectors = read_vectors(atlas.run.paths("search_vectors"), role)
    (row,) = ((layers == layer) & (neurons == neuron)).nonzero()[0]
    return pl.DataFrame(
        {"layer": layers, "neuron": neurons, "match": vectors @ vectors[row]}
    ).filter(~chosen)


def _by_image(
    atlas: Atlas, image: str | Path | Image.Image, model: str | None, device: str | None
) -> pl.DataFrame:
    _require(atlas)
    from neuron_atlas.tasks.probe.images import read_image

    picture = read_image(image)
    if atlas.run.parameter("search", "clip"):
        from neuron_atlas.tasks.search.find_clip import open_clip

        embeddings = open_clip(atlas.run, model, device).embed_images([picture])
        return _nearest_to_any(atlas, "visual", embeddings)
    from neuron_atlas.tasks.search.embed import embed_image

    return _nearest_to_any(atlas, "visual", embed_image(_subject(atlas, model, device), picture))


def _match_clip(
    atlas: Atlas, words: str, role: str | None, model: str | None, device: str | None
) -> pl.DataFrame:
    from neuron_atlas.tasks.search.find_clip import match_words, open_clip

    embedding = open_clip(atlas.run, model, device).embed_texts([words])
    return match_words(atlas.run, embedding, role)


def _match_tokens(atlas: Atlas, words: str, model: str | None, device: str | None) -> pl.DataFrame:
    _require(atlas)
    from neuron_atlas.tasks.search.embed import embed_words

    embeddings = embed_words(_subject(atlas, model, device), words)
    if not len(embeddings):
        raise SearchError(f"the subject's tokenizer has no token for {words!r}")
    return _nearest_to_any(atlas, "text", embeddings, mean=True)


def _nearest_to_any(
    atlas: Atlas, role: str, embeddings: np.ndarray, *, mean: bool = False
) -> pl.DataFrame:
    """Return the highest cosine of each neuron's vector with embeddings [tokens, width], or the
    cosine with their mean."""
    from neuron_atlas.tasks.search.neighbors import read_vectors
    from neuron_atlas.tasks.search.vectors import center_of, unit_rows

    center = center_of(read_table(atlas.run.paths("search_centers"), SEARCH_CENTERS), role)
    layers, neurons, vectors = read_vectors(atlas.run.paths("search_vectors"), role)
    if center is None or not len(layers):
        raise SearchError(f"no neuron of the run {atlas.run.name} peaks in the {role}")
    units = unit_rows(embeddings - center)
    if mean:
        units = unit_rows(units.mean(0, keepdims=True))
    return pl.DataFrame({"layer": layers, "neuron": neurons, "match": (vectors @ units.T).max(1)})


def _subject(atlas: Atlas, model: str | None, device: str | None) -> Subject:
    from neuron_atlas.tasks.probe.run_subject import open_run_subject

    return open_run_subject(atlas.run, model, device)


def _require(atlas: Atlas) -> None:
    if "search_vectors" not in atlas.tables:
        raise SearchError(
            f"the run {atlas.run.name} has no table search_vectors; run its command again"
        )


def _with_explanations(atlas: Atlas, found: pl.DataFrame) -> pl.DataFrame:
    """Add the type and the first explanation of each row."""
    found = found.with_columns(pl.col("layer").cast(pl.Int16), pl.col("neuron").cast(pl.Int32))
    keys = found.select(_KEY).lazy()
    types = atlas.types.select(*_KEY, "type").join(keys, on=_KEY, how="semi").collect()
    found = found.join(types, on=_KEY, how="left", maintain_order="left")
    if "explanations" not in atlas.tables:
        return found
    texts = (
        atlas.explanations.filter(pl.col("status") == "ok")
        .select(*_KEY, pl.col("text").alias("explanation"))
        .join(keys, on=_KEY, how="semi")
        .collect()
        .unique(_KEY, keep="first", maintain_order=True)
    )
    return found.join(texts, on=_KEY, how="left", maintain_order="left")
