"""Encode samples of a catalog for forward passes, in the background and with shared images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from threading import Lock

from PIL import Image

from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.encode import EncodedSample, encode
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.prefetch import prefetch

_THREADS_WITH_GPU = 4


def encoded_samples(
    subject: Subject,
    sample_ids: Sequence[int],
    catalog: Catalog,
    threads: int | None,
    ahead: int,
) -> Iterator[tuple[int, EncodedSample]]:
    """Yield each sample_id with its encoded sample, longest first. Open each image once.

    Samples of one length then come together, and a batch that does not fit into memory is the first
    one. threads: that open images in the background; None for four with a GPU, and none on a CPU.
    ahead: samples to prepare in advance. Raises SampleError and SubjectError.
    """
    images = _SharedImages(catalog, sample_ids)

    def prepare(sample_id: int) -> tuple[int, EncodedSample]:
        return sample_id, encode(subject, images.open(sample_id), catalog[sample_id].text)

    def length(sample_id: int) -> int:
        return catalog[sample_id].n_visual + len(catalog[sample_id].tokens)

    if threads is None:
        threads = _THREADS_WITH_GPU if subject.device.type == "cuda" else 0
    # The sort is stable, so samples of one length stay in their order, by image.
    longest_first = sorted(sample_ids, key=length, reverse=True)
    return prefetch(longest_first, prepare, threads, ahead)


class _SharedImages:
    """Images of some samples. An image of several samples stays open until the last one used it."""

    def __init__(self, catalog: Catalog, sample_ids: Sequence[int]) -> None:
        self._catalog = catalog
        self._uses = Counter(name for one in sample_ids for name in catalog[one].images)
        self._opened: dict[str, Image.Image] = {}
        self._locks = {name: Lock() for name, uses in self._uses.items() if uses > 1}

    def open(self, sample_id: int) -> list[Image.Image]:
        """Return the sample's images. Call once per sample."""
        return [self._open(name) for name in self._catalog[sample_id].images]

    def _open(self, name: str) -> Image.Image:
        if name not in self._locks:
            return self._catalog.open_image(name)
        with self._locks[name]:
            image = self._opened.pop(name, None) or self._catalog.open_image(name)
            self._uses[name] -= 1
            if self._uses[name]:
                self._opened[name] = image
            return image
