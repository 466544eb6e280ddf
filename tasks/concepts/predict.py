"""Predict the activations of a formula at the tokens of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.concepts.borders import at_edge, next_to
from neuron_atlas.tasks.concepts.formula import (
    AREAS,
    KINDS,
    SENTENCES,
    STRENGTHS,
    Atom,
    Formula,
    Kind,
    Role,
    Term,
)
from neuron_atlas.tasks.concepts.presence import patch_coverages, words_of
from neuron_atlas.tasks.concepts.sentence import can_be_quoted
from neuron_atlas.tasks.concepts.tokens import TextTokens, image_areas, text_tokens
from neuron_atlas.tasks.samples.catalog import Catalog, Sample


@dataclass(frozen=True)
class TokenFacts:
    """Everything that formulas can say about the tokens of some samples.

    place: position of each sample_id among the samples. shown: coverage of each concept by sample,
    float32 [n_visual]. edge, near: likewise, 1 for patches that a concept covers in part, and for
    patches next to it. areas: of each sample, bool [AREAS, n_visual]. text: of all samples.
    numbers: position of each word in `text.names`.
    """

    place: Mapping[int, int]
    n_visual: Sequence[int]
    shown: Sequence[Mapping[str, np.ndarray]]
    edge: Sequence[Mapping[str, np.ndarray]]
    near: Sequence[Mapping[str, np.ndarray]]
    areas: Sequence[np.ndarray]
    text: TextTokens
    numbers: Mapping[str, int]
    _text_values: dict[tuple[int, ...], dict[Kind, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Numbers of the text tokens of the samples that were looked at last, by kind of atom."""

    def lengths(self, role: Role, sample_ids: Sequence[int]) -> list[int]:
        """Return the number of visual or text tokens of each sample."""
        places = [self.place[sample_id] for sample_id in sample_ids]
        if role == "visual":
            return [self.n_visual[place] for place in places]
        return np.diff(self.text.offsets)[places].tolist() if places else []

    def predict(
        self, formula: Formula, sample_ids: Sequence[int]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the visual and the text predictions for each sample, float32 [tokens] of it.

        A visual atom's truth is the share of the patch that it covers. Terms are combined by
        minimum, complement and maximum.
        """
        places = [self.place[sample_id] for sample_id in sample_ids]
        visual = self._visual(formula, places)
        text = self._text(formula, places)
        return visual, text

    def truths(
        self, role: Role, atoms: Iterable[Atom], sample_ids: Sequence[int]
    ) -> dict[Atom, np.ndarray]:
        """Return how far atoms of a role hold at its tokens, float32 [tokens of all samples]."""
        places = [self.place[sample_id] for sample_id in sample_ids]
        find = self._visual_truths if role == "visual" else self._text_truths
        return find(atoms, places)

    def named(self, kind: Kind, sample_ids: Sequence[int]) -> tuple[list[str], np.ndarray]:
        """Return the names that atoms of a kind can have in some samples, and how far they hold.

        The names are those that a sentence can quote, sorted; those of areas and sentences in their
        order. How far they hold: float32 [names, tokens of all samples].
        """
        places = [self.place[sample_id] for sample_id in sample_ids]
        if kind in KINDS["visual"]:
            found = {name for place in places for name in self.of_kind(kind, place)}
            names = list(AREAS) if kind == "area" else sorted(filter(can_be_quoted, found))
            atoms = [Atom(kind, (name,)) for name in names]
            truths = self._visual_truths(atoms, places)
            total = sum(self.n_visual[place] for place in places)
            holds = np.zeros((len(names), total), np.float32)
            for row, atom in zip(holds, atoms, strict=True):
                row[:] = truths[atom]
            return names, holds
        values = self._values(places)[kind]
        if kind == "sentence":
            names, numbers = list(SENTENCES), np.arange(len(SENTENCES))
        else:
            present = [number for number in np.unique(values).tolist() if number >= 0]
            by_name = {self.text.names[number]: number for number in present}
            names = sorted(filter(can_be_quoted, by_name))
            numbers = np.array([by_name[name] for name in names], np.int64)
        return names, (values == numbers[:, None]).astype(np.float32)

    def of_kind(self, kind: Kind, place: int) -> Mapping[str, np.ndarray]:
        """Return how far atoms of a concept hold in a sample, float32 [n_visual] by concept."""
        shown = self.edge if kind == "edge" else self.near if kind == "near" else self.shown
        return shown[place]

    def _visual(self, formula: Formula, places: Sequence[int]) -> list[np.ndarray]:
        terms = [term for term in formula.terms if term.role == "visual"]
        if not terms:
            return [np.zeros(self.n_visual[place], np.float32) for place in places]
        lengths = [self.n_visual[place] for place in places]
        stops = np.cumsum(lengths)
        return _cut(_strongest(terms, self._visual_truths(_atoms(terms), places)), stops)

    def _visual_truths(
        self, atoms: Iterable[Atom], places: Sequence[int]
    ) -> dict[Atom, np.ndarray]:
        stops = np.cumsum([self.n_visual[place] for place in places])
        return {atom: self._visual_truth(atom, places, stops) for atom in atoms}

    def _visual_truth(self, atom: Atom, places: Sequence[int], stops: np.ndarray) -> np.ndarray:
        total = int(stops[-1]) if len(stops) else 0
        if atom.kind == "area":
            chosen = [AREAS.index(name) for name in atom.names]
            parts = [self.areas[place][chosen].any(0) for place in places]
            return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32)
        truth = np.zeros(total, np.float32)
        for place, stop in zip(places, stops.tolist(), strict=True):
            shown = self.of_kind(atom.kind, place)
            part = truth[stop - self.n_visual[place] : stop]
            for name in atom.names:
                if name in shown:
                    np.maximum(part, shown[name], out=part)
        return truth

    def _text(self, formula: Formula, places: Sequence[int]) -> list[np.ndarray]:
        offsets = self.text.offsets
        terms = [term for term in formula.terms if term.role == "text"]
        if not terms:
            return [np.zeros(offsets[p + 1] - offsets[p], np.float32) for p in places]
        stops = np.cumsum([offsets[place + 1] - offsets[place] for place in places])
        return _cut(_strongest(terms, self._text_truths(_atoms(terms), places)), stops)

    def _text_truths(self, atoms: Iterable[Atom], places: Sequence[int]) -> dict[Atom, np.ndarray]:
        values = self._values(places)
        truth = {}
        for atom in atoms:
            numbers = (
                {name: number for number, name in enumerate(SENTENCES)}
                if atom.kind == "sentence"
                else self.numbers
            )
            # The last entry is for -1, a token without such a word.
            table = np.zeros(max(len(numbers), len(SENTENCES)) + 1, np.float32)
            table[[numbers[name] for name in atom.names if name in numbers]] = 1
            truth[atom] = table[values[atom.kind]]
        return truth

    def _values(self, places: Sequence[int]) -> dict[Kind, np.ndarray]:
        key = tuple(places)
        if key not in self._text_values:
            self._text_values.clear()
            offsets = self.text.offsets
            parts = [np.arange(offsets[place], offsets[place + 1]) for place in places]
            tokens = np.concatenate([np.zeros(0, np.int64), *parts])
            self._text_values[key] = {
                kind: getattr(self.text, kind)[tokens] for kind in KINDS["text"]
            }
        return self._text_values[key]


def token_facts(catalog: Catalog, sample_ids: Iterable[int]) -> TokenFacts:
    """Return the facts of some samples.

    An image without ground truth shows every word of its text in all its patches, and its image
    clusters.
    """
    ids = list(dict.fromkeys(sample_ids))
    samples = [catalog[sample_id] for sample_id in ids]
    pairs = [
        (place, truth) for place, number in enumerate(ids) for truth in catalog.concepts(number)
    ]
    shown: list[dict[str, np.ndarray]] = [{} for _ in ids]
    for numbers, coverage in patch_coverages([(truth, samples[place]) for place, truth in pairs]):
        for number, covered in zip(numbers.tolist(), coverage, strict=True):
            place, truth = pairs[number]
            known = shown[place].get(truth.name)
            shown[place][truth.name] = covered if known is None else np.maximum(known, covered)
    for place, (number, sample) in enumerate(zip(ids, samples, strict=True)):
        if not catalog.concepts(number):
            whole = np.ones(sample.n_visual, np.float32)
            shown[place] = dict.fromkeys(words_of(sample.text), whole)
        clusters = catalog.image_clusters(number)
        shown[place] |= {name: held.astype(np.float32) for name, held in clusters.items()}
    edge, near = _borders(samples, shown)
    text = text_tokens(samples)
    return TokenFacts(
        {sample_id: place for place, sample_id in enumerate(ids)},
        [sample.n_visual for sample in samples],
        shown,
        edge,
        near,
        [image_areas(sample) for sample in samples],
        text,
        {name: number for number, name in enumerate(text.names)},
    )


def _borders(
    samples: Sequence[Sample], shown: Sequence[Mapping[str, np.ndarray]]
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return which patches are at the edge of each concept, and which are next to it, by sample.

    A concept without such patches is left out.
    """
    edge: list[dict[str, np.ndarray]] = [{} for _ in samples]
    near: list[dict[str, np.ndarray]] = [{} for _ in samples]
    by_layout: dict[tuple[Region, ...], list[tuple[int, str]]] = {}
    for place, sample in enumerate(samples):
        by_layout.setdefault(sample.regions, []).extend((place, name) for name in shown[place])
    for regions, keys in by_layout.items():
        if not keys:
            continue
        coverage = np.stack([shown[place][name] for place, name in keys])
        for found, held in ((edge, at_edge(coverage)), (near, next_to(coverage, regions))):
            rows = held.astype(np.float32)
            for number in np.flatnonzero(held.any(axis=1)).tolist():
                place, name = keys[number]
                found[place][name] = rows[number]
    return edge, near


def _atoms(terms: Sequence[Term]) -> set[Atom]:
    return {atom for term in terms for atom in (*term.required, *term.excluded)}


def _strongest(terms: Sequence[Term], truth: Mapping[Atom, np.ndarray]) -> np.ndarray:
    predicted = np.zeros(0, np.float32)
    for number, term in enumerate(terms):
        holds = np.minimum.reduce(
            [
                *(truth[atom] for atom in term.required),
                *(1 - truth[atom] for atom in term.excluded),
            ]
        )
        value = np.float32(STRENGTHS[term.strength]) * holds
        predicted = value if number == 0 else np.maximum(predicted, value)
    return predicted.astype(np.float32)


def _cut(values: np.ndarray, stops: np.ndarray) -> list[np.ndarray]:
    return np.split(values, stops[:-1]) if len(stops) else []
