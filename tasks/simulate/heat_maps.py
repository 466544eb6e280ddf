"""Predict traces with a segmentation model: one heat map for each explanation and image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.out_of_memory import is_out_of_memory
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import SampleError
from neuron_atlas.tasks.simulate.segmenter import Box, Segmenter, mean_over_tokens
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pair:
    """One request and one image of its sample.

    request: index of the request. regions: the image's regions, each with the index of its first
    token among the sample's visual tokens.
    """

    request: int
    image: str
    regions: tuple[tuple[int, Region], ...]


@dataclass(frozen=True)
class _Features:
    """Features of an image, and the part of the image that they cover; see `Segmenter`."""

    values: torch.Tensor
    covered: Box


class HeatMaps(Simulator):
    """Simulator with its model in memory and a cache of image features.

    batch_size, feature_cache_gb: see `ClipSeg`.
    """

    def __init__(
        self, segmenter: Segmenter, name: str, *, batch_size: int, feature_cache_gb: float
    ) -> None:
        self.name = name
        self._segmenter = segmenter
        self._batch_size = batch_size
        self._free_bytes = feature_cache_gb * 1e9
        self._cache: dict[str, _Features] = {}

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Raises ModelError if memory does not suffice for one map."""
        texts = list(dict.fromkeys(request.explanation for request in requests))
        if not texts:
            return []
        embeddings, is_cut = self._segmenter.encode_texts(texts)
        row = {text: number for number, text in enumerate(texts)}
        rows = [row[request.explanation] for request in requests]
        visual = [np.zeros(catalog[one.sample_id].n_visual, np.float32) for one in requests]
        failed = self._fill(visual, embeddings[rows], self._pairs(requests, catalog), catalog)
        return [
            _prediction(values, failed.get(number), self._estimator(is_cut[rows[number]]))
            for number, values in enumerate(visual)
        ]

    def _pairs(self, requests: Sequence[SimulationRequest], catalog: Catalog) -> list[_Pair]:
        """Return all pairs of a request and an image, grouped by image."""
        pairs = (
            pair
            for number, request in enumerate(requests)
            for pair in _pairs_of(number, catalog[request.sample_id])
        )
        return sorted(pairs, key=lambda pair: pair.image)

    def _fill(
        self,
        visual: Sequence[np.ndarray],
        embeddings: torch.Tensor,
        pairs: Sequence[_Pair],
        catalog: Catalog,
    ) -> dict[int, str]:
        """Write the predictions of `pairs` into `visual`; return the reasons of failed requests."""
        failed: dict[int, str] = {}
        last: dict[str, _Features] = {}
        start = 0
        while start < len(pairs):
            batch = pairs[start : start + self._batch_size]
            try:
                last, unreadable = self._encode({pair.image for pair in batch}, last, catalog)
                readable = [pair for pair in batch if pair.image in last]
                self._predict(visual, embeddings, readable, last)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(batch), error)
                continue
            failed |= {p.request: unreadable[p.image] for p in batch if p.image in unreadable}
            start += len(batch)
        return failed

    def _encode(
        self, images: set[str], last: dict[str, _Features], catalog: Catalog
    ) -> tuple[dict[str, _Features], dict[str, str]]:
        """Return the features of images, and for unreadable images the reason.

        last: features of the previous batch, whose last image may continue in this one.
        """
        features = {
            name: known[name] for known in (self._cache, last) for name in images & known.keys()
        }
        unreadable, opened = {}, {}
        for name in sorted(images - features.keys()):
            try:
                opened[name] = catalog.open_image(name)
            except SampleError as error:
                unreadable[name] = error.reason
        if opened:
            encoded = self._segmenter.encode_images(list(opened.values()))
            for (name, image), values in zip(opened.items(), encoded, strict=True):
                features[name] = _Features(values, self._segmenter.covered_box(image))
                self._add_to_cache(name, features[name])
        return features, unreadable

    def _add_to_cache(self, name: str, features: _Features) -> None:
        # The cache never evicts. Parts go through the images in the same order again and again, so
        # with more images than fit, the most recent ones are never those needed next.
        size = features.values.numel() * features.values.element_size()
        if size <= self._free_bytes:
            self._free_bytes -= size
            # A copy, because a view would keep the whole batch in memory.
            self._cache[name] = _Features(features.values.clone(), features.covered)

    def _predict(
        self,
        visual: Sequence[np.ndarray],
        embeddings: torch.Tensor,
        pairs: Sequence[_Pair],
        features: dict[str, _Features],
    ) -> None:
        if not pairs:
            return
        stacked = torch.stack([features[pair.image].values for pair in pairs])
        heat = self._segmenter.heat_maps(stacked, embeddings[[pair.request for pair in pairs]])
        means, owners = [], []
        for (image, regions), group in groupby(
            enumerate(pairs), key=lambda numbered: (numbered[1].image, numbered[1].regions)
        ):
            numbers, group_pairs = zip(*group, strict=True)
            maps = heat[numbers[0] : numbers[-1] + 1]
            for first, region in regions:
                means.append(mean_over_tokens(maps, features[image].covered, region).flatten())
                owners += [(pair.request, first, region.tokens) for pair in group_pairs]
        # One copy for all: each copy from a GPU waits for all its pending work.
        values = torch.cat(means).cpu().numpy()
        start = 0
        for request, first, tokens in owners:
            visual[request][first : first + tokens] = values[start : start + tokens]
            start += tokens

    def _halve(self, size: int, error: RuntimeError) -> None:
        if size == 1:
            raise ModelError(
                "simulate: out of memory with one heat map; lower "
                "simulate.feature_cache_gb or use a smaller model"
            ) from error
        self._batch_size = size // 2
        _log.warning("out of memory: simulate continues with batches of %d", self._batch_size)
        torch.cuda.empty_cache()

    def _estimator(self, is_cut: bool) -> str:
        if is_cut:
            return f"probability, of the first {self._segmenter.longest_text} tokens"
        return "probability"


def _pairs_of(request: int, sample: Sample) -> Iterator[_Pair]:
    by_image: dict[int, list[tuple[int, Region]]] = {}
    first = 0
    for region in sample.regions:
        by_image.setdefault(region.image, []).append((first, region))
        first += region.tokens
    for image, regions in by_image.items():
        yield _Pair(request, sample.images[image], tuple(regions))


def _prediction(visual: np.ndarray, failure: str | None, estimator: str) -> Prediction:
    if failure is not None:
        nothing = np.empty(0, np.float32)
        return Prediction(nothing, nothing, estimator, "failed", failure)
    return Prediction(visual, None, estimator)
