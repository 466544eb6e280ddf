"""List the words, neighbors and sentences that a neuron's samples offer to a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neuron_atlas.tasks.concepts.formula import SENTENCES, Atom, Kind
from neuron_atlas.tasks.concepts.predict import TokenFacts
from neuron_atlas.tasks.explain.role_candidates import RoleCandidates

_TEXT_KINDS: tuple[Kind, ...] = ("word", "after", "before", "sentence")
_TEXT_PAIRS: tuple[tuple[Kind, Kind], ...] = (
    *(("word", "after"), ("word", "before"), ("word", "sentence")),
    *(("after", "before"), ("after", "sentence"), ("before", "sentence")),
)


class TextFinder:
    """Finds the candidates on text tokens.

    classes: words that can be named together, as one atom.
    """

    def __init__(
        self, facts: TokenFacts, min_samples: int, classes: Sequence[Sequence[str]]
    ) -> None:
        self._classes = [tuple(sorted(its)) for its in classes]
        self._facts = facts
        self._min_samples = min_samples
        names = np.array([*facts.text.names, ""], dtype=object)
        self._order = np.argsort(names[:-1].astype(str), kind="stable")
        # Words are numbered by name, so that a neuron's candidates do not depend on other neurons.
        rank = np.full(len(names), -1, np.int64)
        rank[self._order] = np.arange(len(self._order))
        self._class_ids = [
            [int(rank[facts.numbers[name]]) for name in its if name in facts.numbers]
            for its in self._classes
        ]
        ids = {kind: rank[getattr(facts.text, kind)] for kind in _TEXT_KINDS[:3]}
        ids["sentence"] = facts.text.sentence.astype(np.int64)
        # Tokens that agree in all of this are of the same unit.
        key = np.zeros(len(facts.text.word), np.int64)
        for kind in _TEXT_KINDS:
            key = key * (max(len(self._order), len(SENTENCES)) + 1) + ids[kind] + 1
        _, first, self._unit = np.unique(key, return_index=True, return_inverse=True)
        self._ids = {kind: ids[kind][first] for kind in _TEXT_KINDS}

    def find(self, places: Sequence[int]) -> RoleCandidates:
        """Return the candidates of the samples at some places among those of the facts."""
        offsets = self._facts.text.offsets
        parts = [np.arange(offsets[place], offsets[place + 1]) for place in places]
        tokens = np.concatenate([np.zeros(0, np.int64), *parts])
        units, group = np.unique(self._unit[tokens], return_inverse=True)
        is_in = np.zeros((len(units), len(places)), bool)
        is_in[group, np.repeat(np.arange(len(places)), [len(part) for part in parts])] = True
        ids = {kind: self._ids[kind][units] for kind in _TEXT_KINDS}
        atoms: list[Atom] = []
        rows: list[np.ndarray] = []
        numbers: dict[tuple[str, int], int] = {}
        for kind in _TEXT_KINDS:
            for value, row in self._groups(ids[kind], is_in):
                name = (
                    SENTENCES[value]
                    if kind == "sentence"
                    else self._facts.text.names[self._order[value]]
                )
                numbers[kind, value] = len(atoms)
                atoms.append(Atom(kind, (name,)))
                rows.append(row)
        for kind in _TEXT_KINDS[:3]:
            self._add_classes(kind, numbers, atoms, rows)
        pairs, paired = [], []
        size = len(self._order) + len(SENTENCES) + 1
        for one, other in _TEXT_PAIRS:
            both = (ids[one] >= 0) & (ids[other] >= 0)
            joint = np.where(both, ids[one] * size + ids[other], -1)
            for value, row in self._groups(joint, is_in):
                a, b = numbers[one, value // size], numbers[other, value % size]
                # A pair that holds exactly where one of its atoms does adds nothing.
                if len(row) < min(len(rows[a]), len(rows[b])):
                    pairs.append((a, b))
                    paired.append(row)
        return RoleCandidates(atoms, pairs, [*rows, *paired], group, len(units))

    def _add_classes(
        self,
        kind: Kind,
        numbers: Mapping[tuple[str, int], int],
        atoms: list[Atom],
        rows: list[np.ndarray],
    ) -> None:
        """Add an atom for each class with at least two words in the samples."""
        for names, ids in zip(self._classes, self._class_ids, strict=True):
            present = [rows[numbers[kind, one]] for one in ids if (kind, one) in numbers]
            if len(present) > 1:
                atoms.append(Atom(kind, names))
                rows.append(np.sort(np.concatenate(present)))

    def _groups(self, ids: np.ndarray, is_in: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Return each number in `ids` with its positions, if they are in enough samples.

        is_in: bool [positions, samples].
        """
        order = np.argsort(ids, kind="stable")
        order = order[np.searchsorted(ids, 0, sorter=order) :]
        if not len(order):
            return []
        ordered = ids[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        n_samples = np.logical_or.reduceat(is_in[order], starts).sum(axis=1)
        stops = np.append(starts[1:], len(order))
        chosen = np.flatnonzero(n_samples >= self._min_samples)
        return [
            (value, order[start:stop])
            for value, start, stop in zip(
                ordered[starts[chosen]].tolist(),
                starts[chosen].tolist(),
                stops[chosen].tolist(),
                strict=True,
            )
        ]
