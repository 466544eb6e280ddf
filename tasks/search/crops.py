"""Embed the surroundings of peaks with a CLIP-like model: crops of images, and words of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts.places import role_of, sample_of, token_of
from neuron_atlas.tasks.artifacts.regions import count_tokens, token_boxes
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.search.encoder import Encoder
from neuron_atlas.tasks.search.peaks import SEARCHED_ROLES
from neuron_atlas.tasks.subject.fit_batch import fit_batch

_SHARE = 1 / 3
"""Side of a crop, as a share of the image's shorter side; at least the token's box."""
_STEPS = 8
"""Places of a crop's center along the shorter side, so that near peaks share a crop."""
_WORDS_BEFORE = 5
"""Words before the peak that are embedded with it."""

Box = tuple[int, int, int, int]


def embed_surroundings(
    encoder: Encoder,
    places: np.ndarray,
    catalog: Catalog,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Return the embeddings of what is at some places (see `place_of`), ascending: float32 [places,
    width], of length 1.

    A place in an image is embedded as a crop around its token, one in a text as the words up to it.
    Raises SampleError, and SubjectError if memory runs out.
    """
    samples = sample_of(places)
    embeddings = np.zeros((len(places), encoder.width), np.float32)

    def attempt(size: int, count: Callable[[int], None]) -> None:
        for sample_id in np.unique(samples).tolist():
            start, stop = np.searchsorted(samples, [sample_id, sample_id + 1])
            mine, sample = places[start:stop], catalog[sample_id]
            rows = embeddings[start:stop]
            for index, embed in enumerate((_embed_crops, _embed_words)):
                chosen = role_of(mine) == index
                if chosen.any():
                    tokens = token_of(mine[chosen]).tolist()
                    rows[chosen] = embed(encoder, catalog, sample, tokens, size)
            count(1)

    assert SEARCHED_ROLES == ("visual", "text")
    fit_batch(batch_size, attempt, on_batch, "search", "use a device with more memory")
    return embeddings


def crop_box(box: np.ndarray, width: int, height: int) -> Box:
    """Return the crop around a visual token: left, top, right, bottom in px, inside the image.

    box: of the token, in px of the image. width, height: of the image, px.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    side = max(_SHARE * min(width, height), right - left, bottom - top)
    step = min(width, height) / _STEPS
    bounds = []
    for low, high, size in ((left, right, width), (top, bottom, height)):
        center = (np.floor((low + high) / 2 / step) + 0.5) * step
        length = min(side, size)
        first = min(max(center - length / 2, 0), size - length)
        bounds.append((round(first), max(round(first) + 1, round(first + length))))
    (x, right_x), (y, bottom_y) = bounds
    return x, y, min(right_x, width), min(bottom_y, height)


def words_at(tokens: Sequence[str], token: int) -> str:
    """Return the words of a text up to a token, with the whole word that the token is part of.

    tokens: pieces that give the text when joined.
    """
    end = token + 1
    while end < len(tokens) and tokens[end][:1].isalnum():
        end += 1
    words = "".join(tokens[:end]).split()
    return " ".join(words[-1 - _WORDS_BEFORE :])


def _embed_crops(
    encoder: Encoder, catalog: Catalog, sample: Sample, tokens: Sequence[int], size: int
) -> np.ndarray:
    boxes = token_boxes(sample.regions)
    counts = [count_tokens([region]) for region in sample.regions]
    of_token = np.repeat([region.image for region in sample.regions], counts)
    images: dict[int, Image.Image] = {}
    keys = []
    for token in tokens:
        index = int(of_token[token])
        if index not in images:
            images[index] = catalog.open_image(sample.images[index])
        keys.append((index, crop_box(boxes[token], *images[index].size)))
    distinct = list(dict.fromkeys(keys))
    parts = [
        encoder.embed_images([images[index].crop(box) for index, box in distinct[at : at + size]])
        for at in range(0, len(distinct), size)
    ]
    place = {key: row for row, key in enumerate(distinct)}
    return np.concatenate(parts)[[place[key] for key in keys]]


def _embed_words(
    encoder: Encoder, _catalog: Catalog, sample: Sample, tokens: Sequence[int], size: int
) -> np.ndarray:
    texts = [words_at(sample.tokens, token) for token in tokens]
    distinct = list(dict.fromkeys(texts))
    parts = [encoder.embed_texts(distinct[at : at + size]) for at in range(0, len(distinct), size)]
    place = {text: row for row, text in enumerate(distinct)}
    return np.concatenate(parts)[[place[text] for text in texts]]
