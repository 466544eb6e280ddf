"""Choose the samples of a neuron's evidence that go into an explainer's prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.evidence.evidence import (
    ActivationRecord,
    Evidence,
    normalize_to_ten,
    to_levels,
)
from neuron_atlas.tasks.samples.catalog import Catalog

_SILENT = 1.0
"""A sample is silent if all its activations, on the scale to 10, are below this."""


@dataclass(frozen=True)
class ChosenExamples:
    """Samples of one neuron for the prompt: active ones, strongest first, and silent contrasts."""

    active: tuple[ActivationRecord, ...]
    contrasts: tuple[ActivationRecord, ...] = ()

    @property
    def sample_ids(self) -> tuple[int, ...]:
        """Ids of the active samples, then of the contrasts."""
        return tuple(sample.sample_id for sample in (*self.active, *self.contrasts))


def choose_examples(
    evidence: Evidence, catalog: Catalog, count: int, lower_share: float, contrasts: int
) -> ChosenExamples:
    """Choose at most `count` active samples and at most `contrasts` silent ones like them.

    The share `lower_share` (rounded down) of the active samples comes from lower quantiles: the
    exemplars below the strongest are split into that many equal parts, and the middle one of each
    part is taken. Each image appears once. A sample is active if a token of the roles shown for the
    neuron's type reaches level 1.

    Contrasts are random samples on which the neuron is silent, in the order of their texts'
    similarity to the active samples: cosine of TF-IDF over words, with document frequencies over
    this neuron's own samples. Texts describe images, so similar texts mean similar content. Samples
    that share no word with the active ones are never chosen.
    """
    usable = [sample for sample in evidence.exemplars if peak_level(sample, evidence) > 0]
    ranked = _distinct_images(usable, catalog)
    n_lower = int(count * lower_share)
    strongest, below = ranked[: count - n_lower], ranked[count - n_lower :]
    parts = np.array_split(np.arange(len(below)), n_lower) if n_lower else []
    weaker = [below[part[len(part) // 2]] for part in parts if len(part)]
    active = (*strongest, *weaker)
    if not active or not contrasts:
        return ChosenExamples(active)
    return ChosenExamples(active, tuple(_contrasts(evidence, active, catalog, contrasts)))


def peak_level(sample: ActivationRecord, evidence: Evidence) -> int:
    """Return the highest level, 0 to 10, among the tokens shown for the neuron's type."""
    activations = [np.zeros(1, np.float32)]
    activations += [sample.visual.ravel()] if evidence.type != "text" else []
    activations += [sample.text.ravel()] if evidence.type != "visual" else []
    return int(to_levels(normalize_to_ten(np.concatenate(activations), evidence.scale)).max())


def _distinct_images(
    samples: Iterable[ActivationRecord], catalog: Catalog, used: Iterable[str] = ()
) -> list[ActivationRecord]:
    """Return the samples, in order, without those that share an image with `used` or with an
    earlier sample."""
    distinct, used_images = [], set(used)
    for sample in samples:
        images = catalog[sample.sample_id].images
        if used_images.isdisjoint(images):
            used_images.update(images)
            distinct.append(sample)
    return distinct


def _contrasts(
    evidence: Evidence, active: Sequence[ActivationRecord], catalog: Catalog, count: int
) -> list[ActivationRecord]:
    used = [image for sample in active for image in catalog[sample.sample_id].images]
    silent = [sample for sample in evidence.random if _is_silent(sample, evidence.scale)]
    silent = _distinct_images(silent, catalog, used)
    if not silent:
        return []
    words = {number: Counter(words_of(catalog[number].text)) for number in evidence.sample_ids}
    n_documents = Counter(word for counts in words.values() for word in counts)
    index = {word: number for number, word in enumerate(sorted(n_documents))}
    # Smoothed: a word that occurs in all samples has a small weight, not 0.
    idf = {word: np.log((1 + len(words)) / (1 + n)) + 1 for word, n in n_documents.items()}

    def vector(sample: ActivationRecord) -> np.ndarray:
        values = np.zeros(len(index))
        for word, n in words[sample.sample_id].items():
            values[index[word]] = n * idf[word]
        return values / max(float(np.linalg.norm(values)), 1e-12)

    content = np.sum([vector(sample) for sample in active], axis=0)
    similarities = [(float(vector(sample) @ content), sample) for sample in silent]
    similarities.sort(key=lambda pair: (-pair[0], pair[1].sample_id))
    return [sample for similarity, sample in similarities[:count] if similarity > 0]


def _is_silent(sample: ActivationRecord, scale: float) -> bool:
    activations = np.concatenate([sample.visual.ravel(), sample.text.ravel()])
    return bool(normalize_to_ten(activations, scale).max(initial=0) < _SILENT)
