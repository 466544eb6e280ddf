"""Find neurons by words and images in the space of a run's CLIP model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from neuron_atlas.tasks.artifacts import SEARCH_CENTERS, read_table
from neuron_atlas.tasks.models.pretrained import weights_revision
from neuron_atlas.tasks.search.encoder import Encoder, load_encoder
from neuron_atlas.tasks.search.errors import SearchError
from neuron_atlas.tasks.search.neighbors import read_vectors
from neuron_atlas.tasks.search.peaks import SEARCHED_ROLES
from neuron_atlas.tasks.search.settings import MODEL_SETTING
from neuron_atlas.tasks.search.vectors import center_of, unit_rows

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.runs import Run

_SHOWN = 12
"""Characters of a fingerprint in a message."""


def clip_of(run: Run) -> Mapping[str, Any]:
    """Return what identifies the CLIP model behind the vectors of a run; empty if there is none."""
    return run.parameter("search", "clip")


def open_clip(run: Run, model: str | None = None, device: str | None = None) -> Encoder:
    """Load the CLIP model of a run, which stays loaded in this process.

    model: its folder, if it has moved; None for where the run found it. device: of torch; None for
    a GPU if there is one. Raises SearchError if its weights are others than the run's, and
    ModelError.
    """
    place = model or str(run.stage_manifest("search").get("about", {}).get("model", ""))
    expected, found = clip_of(run)["weights"], weights_revision(place, None, MODEL_SETTING)
    if found != expected:
        raise SearchError(
            f"{place!r} is another model than the run's: its files have the fingerprint "
            f"{found[:_SHOWN]}, those of the run {expected[:_SHOWN]}"
        )
    return _load(place, device or ("cuda" if torch.cuda.is_available() else "cpu"))


@lru_cache(maxsize=1)
def _load(place: str, device: str) -> Encoder:
    return load_encoder(place, device)


def match_words(run: Run, embedding: np.ndarray, role: str | None) -> pl.DataFrame:
    """Return each neuron's match with an embedding of words: layer, neuron, match.

    It is the cosine with the neuron's vector, in standard deviations over the neurons of its role:
    texts are nearer to texts than to images. Of the two roles the higher one counts. embedding:
    float32 [1, width]. role: visual or text alone; None for both.
    """
    centers = read_table(run.paths("search_centers"), SEARCH_CENTERS)
    # Words lie where texts do, apart from images.
    center = center_of(centers, "text")
    query = unit_rows(embedding if center is None else embedding - center)[0]
    rows = []
    for name in SEARCHED_ROLES if role is None else (role,):
        layers, neurons, vectors = read_vectors(run.paths("search_vectors"), name)
        if len(layers):
            cosines = (vectors @ query).astype(np.float64)
            match = (cosines - cosines.mean()) / (cosines.std() or 1.0)
            rows.append(pl.DataFrame({"layer": layers, "neuron": neurons, "match": match}))
    if not rows:
        raise SearchError(f"no neuron of the run {run.name} peaks in the {role or 'image or text'}")
    found = (
        pl.concat(rows).group_by("layer", "neuron", maintain_order=True).agg(pl.col("match").max())
    )
    return found.with_columns(pl.col("layer").cast(pl.Int16), pl.col("neuron").cast(pl.Int32))
