"""Predicts traces with a segmentation model: a heat map for each explanation and image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.out_of_memory import is_out_of_memory
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import BadSample
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
    """One image of the sample of the question at `place`, with the regions that lie over it.

    regions: each with the place of its first token among the sample's visual tokens.
    """

    place: int
    image: str
    regions: tuple[tuple[int, Region], ...]


@dataclass(frozen=True)
class _Seen:
    """What the model saw in an image (see Segmenter), and what of it."""

    features: torch.Tensor
    covered: Box


class HeatMaps(Simulator):
    """A simulator with its model in memory, and a cache of image features.

    batch_size, features_gb: see `ClipSeg`.
    """

    def __init__(
        self, segmenter: Segmenter, name: str, *, batch_size: int, features_gb: float
    ) -> None:
        self.name = name
        self._segmenter = segmenter
        self._at_once = batch_size
        self._room = features_gb * 1e9
        self._kept: dict[str, _Seen] = {}

    def simulate(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Raises ModelError where memory does not suffice for one map."""
        texts = list(dict.fromkeys(asked.explanation for asked in questions))
        if not texts:
            return []
        told, cut = self._segmenter.read(texts)
        row = {text: number for number, text in enumerate(texts)}
        rows = [row[asked.explanation] for asked in questions]
        visual = [np.zeros(catalog[asked.sample_id].n_visual, np.float32) for asked in questions]
        failed = self._fill(visual, told[rows], self._pairs(questions, catalog), catalog)
        return [
            _prediction(values, failed.get(place), self._estimator(cut[rows[place]]))
            for place, values in enumerate(visual)
        ]

    def _pairs(self, questions: Sequence[SimulationRequest], catalog: Catalog) -> list[_Pair]:
        """All pairs of an image and a question, those of an image one after the other."""
        pairs = (
            pair
            for place, asked in enumerate(questions)
            for pair in _pairs_of(place, catalog[asked.sample_id])
        )
        return sorted(pairs, key=lambda pair: pair.image)

    def _fill(
        self,
        visual: Sequence[np.ndarray],
        told: torch.Tensor,
        pairs: Sequence[_Pair],
        catalog: Catalog,
    ) -> dict[int, str]:
        """Put the predictions of `pairs` into `visual`; why others failed, by their place."""
        failed: dict[int, str] = {}
        last: dict[str, _Seen] = {}
        start = 0
        while start < len(pairs):
            batch = pairs[start : start + self._at_once]
            try:
                last, unreadable = self._look({pair.image for pair in batch}, last, catalog)
                readable = [pair for pair in batch if pair.image in last]
                self._draw(visual, told, readable, last)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(batch), error)
                continue
            failed |= {p.place: unreadable[p.image] for p in batch if p.image in unreadable}
            start += len(batch)
        return failed

    def _look(
        self, images: set[str], last: dict[str, _Seen], catalog: Catalog
    ) -> tuple[dict[str, _Seen], dict[str, str]]:
        """What the model sees in images, and why others cannot be read. `last`: of the last batch,
        whose last image may go on in this one."""
        seen = {name: known[name] for known in (self._kept, last) for name in images & known.keys()}
        unreadable, opened = {}, {}
        for name in sorted(images - seen.keys()):
            try:
                opened[name] = catalog.open_image(name)
            except BadSample as error:
                unreadable[name] = error.reason
        if opened:
            features = self._segmenter.look(list(opened.values()))
            for (name, image), of_image in zip(opened.items(), features, strict=True):
                seen[name] = _Seen(of_image, self._segmenter.covered(image))
                self._keep(name, seen[name])
        return seen, unreadable

    def _keep(self, name: str, seen: _Seen) -> None:
        # What is kept is never given up for others: parts go through the images again and again,
        # and a round that is longer than the room would find of the latest nothing that it needs.
        size = seen.features.numel() * seen.features.element_size()
        if size <= self._room:
            self._room -= size
            # Apart from the batch that it is a part of, which would stay in memory as a whole.
            self._kept[name] = _Seen(seen.features.clone(), seen.covered)

    def _draw(
        self,
        visual: Sequence[np.ndarray],
        told: torch.Tensor,
        pairs: Sequence[_Pair],
        seen: dict[str, _Seen],
    ) -> None:
        if not pairs:
            return
        features = torch.stack([seen[pair.image].features for pair in pairs])
        heat = self._segmenter.heat(features, told[[pair.place for pair in pairs]])
        means, owners = [], []
        for (image, regions), group in groupby(
            enumerate(pairs), key=lambda numbered: (numbered[1].image, numbered[1].regions)
        ):
            numbers, mine = zip(*group, strict=True)
            maps = heat[numbers[0] : numbers[-1] + 1]
            for first, region in regions:
                means.append(mean_over_tokens(maps, seen[image].covered, region).flatten())
                owners += [(pair.place, first, region.tokens) for pair in mine]
        # All at once, for each copy from a GPU waits until it has done everything before.
        values = torch.cat(means).cpu().numpy()
        start = 0
        for place, first, tokens in owners:
            visual[place][first : first + tokens] = values[start : start + tokens]
            start += tokens

    def _halve(self, size: int, error: RuntimeError) -> None:
        if size == 1:
            raise ModelError(
                "simulate: out of memory with one heat map; lower simulate.features_gb, or take a "
                "smaller model"
            ) from error
        self._at_once = size // 2
        _log.warning("out of memory: simulate goes on with batches of %d", self._at_once)
        torch.cuda.empty_cache()

    def _estimator(self, is_cut: bool) -> str:
        if is_cut:
            return f"probability, of the first {self._segmenter.longest_text} tokens"
        return "probability"


def _pairs_of(place: int, sample: Sample) -> Iterator[_Pair]:
    over: dict[int, list[tuple[int, Region]]] = {}
    first = 0
    for region in sample.regions:
        over.setdefault(region.image, []).append((first, region))
        first += region.tokens
    for image, regions in over.items():
        yield _Pair(place, sample.images[image], tuple(regions))


def _prediction(visual: np.ndarray, failure: str | None, estimator: str) -> Prediction:
    if failure is not None:
        nothing = np.empty(0, np.float32)
        return Prediction(nothing, nothing, estimator, "failed", failure)
    return Prediction(visual, None, estimator)
