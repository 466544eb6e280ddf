"""Which samples of a neuron's evidence an explainer is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.evidence.evidence import Evidence, Excitation, to_levels, to_ten
from neuron_atlas.tasks.samples.catalog import Catalog

_SILENT = 1.0
"""Of 10: a sample on which no token reaches it counts as one that leaves the neuron silent."""


@dataclass(frozen=True)
class ChosenExamples:
    """What is shown of one neuron: active samples, strongest first, and silent ones."""

    active: tuple[Excitation, ...]
    contrasts: tuple[Excitation, ...] = ()

    @property
    def sample_ids(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(seen.sample_id for seen in (*self.active, *self.contrasts))


def choose_examples(
    evidence: Evidence, catalog: Catalog, count: int, lower_share: float, contrasts: int
) -> ChosenExamples:
    """At most `count` active samples, and `contrasts` silent ones that resemble them.

    Of the active ones, the share `lower_share` (rounded down) comes from the lower quantiles: the
    exemplars below the strongest are cut into as many equal parts, and the middle of each is
    taken. An image is shown once. A sample counts as active if some token of the roles that are
    shown for the neuron's type reaches level 1.

    Contrasts are random samples that leave the neuron silent, by how alike their texts are to
    those of the active ones: cosine of TF-IDF over words, whose document frequencies are those
    among this neuron's own samples. So what is alike is what the texts mention: for described
    images that is their content, as far as it was described. Samples that share no word are never
    taken.
    """
    usable = [seen for seen in evidence.exemplars if peak_level(seen, evidence) > 0]
    ranked = _one_an_image(usable, catalog)
    lower = int(count * lower_share)
    strongest, rest = ranked[: count - lower], ranked[count - lower :]
    parts = np.array_split(np.arange(len(rest)), lower) if lower else []
    weaker = [rest[part[len(part) // 2]] for part in parts if len(part)]
    active = (*strongest, *weaker)
    if not active or not contrasts:
        return ChosenExamples(active)
    return ChosenExamples(active, tuple(_contrasts(evidence, active, catalog, contrasts)))


def peak_level(seen: Excitation, evidence: Evidence) -> int:
    """The highest level, 0 to 10, of the tokens that are shown for the neuron's type."""
    shown = [np.zeros(1, np.float32)]
    shown += [seen.visual.ravel()] if evidence.type != "text" else []
    shown += [seen.text.ravel()] if evidence.type != "visual" else []
    return int(to_levels(to_ten(np.concatenate(shown), evidence.scale)).max())


def _one_an_image(
    seen: Iterable[Excitation], catalog: Catalog, known: Iterable[str] = ()
) -> list[Excitation]:
    """Those of `seen`, in order, that bring no image which is `known` or which came before."""
    kept, shown = [], set(known)
    for excitation in seen:
        images = catalog[excitation.sample_id].images
        if shown.isdisjoint(images):
            shown.update(images)
            kept.append(excitation)
    return kept


def _contrasts(
    evidence: Evidence, active: Sequence[Excitation], catalog: Catalog, count: int
) -> list[Excitation]:
    shown = [image for seen in active for image in catalog[seen.sample_id].images]
    silent = [seen for seen in evidence.random if _is_silent(seen, evidence.scale)]
    silent = _one_an_image(silent, catalog, shown)
    if not silent:
        return []
    words = {seen: Counter(words_of(catalog[seen].text)) for seen in evidence.sample_ids}
    held = Counter(word for counted in words.values() for word in counted)
    place = {word: index for index, word in enumerate(sorted(held))}
    # Smoothed, so that a word that all samples have counts little, and never nothing.
    rarity = {word: np.log((1 + len(words)) / (1 + times)) + 1 for word, times in held.items()}

    def vector(seen: Excitation) -> np.ndarray:
        values = np.zeros(len(place))
        for word, times in words[seen.sample_id].items():
            values[place[word]] = times * rarity[word]
        return values / max(float(np.linalg.norm(values)), 1e-12)

    content = np.sum([vector(seen) for seen in active], axis=0)
    likeness = [(float(vector(seen) @ content), seen) for seen in silent]
    likeness.sort(key=lambda pair: (-pair[0], pair[1].sample_id))
    return [seen for alike, seen in likeness[:count] if alike > 0]


def _is_silent(seen: Excitation, scale: float) -> bool:
    everything = np.concatenate([seen.visual.ravel(), seen.text.ravel()])
    return bool(to_ten(everything, scale).max(initial=0) < _SILENT)
