"""List the concepts and areas that a neuron's images offer to a formula."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from neuron_atlas.tasks.concepts.borders import COVERED, SHOWS
from neuron_atlas.tasks.concepts.formula import AREAS, Atom, Kind
from neuron_atlas.tasks.concepts.predict import TokenFacts
from neuron_atlas.tasks.concepts.sentence import can_be_quoted
from neuron_atlas.tasks.explain.role_candidates import RoleCandidates

_DISTINCT = 0.3
"""Difference between the responses to the edge and to the inside of a concept, over the larger one,
above which the edge is an atom."""
_PAIRED = 12
"""Atoms of an image whose pairs with all others are candidates: the best ones."""
_CONCEPT_KINDS: tuple[Kind, ...] = ("shows", "edge", "near")


class ImageFinder:
    """Finds the candidates on visual tokens. A search takes a patch to show a concept or not."""

    def __init__(self, facts: TokenFacts, min_samples: int) -> None:
        self._facts = facts
        self._min_samples = min_samples
        # Concepts are numbered by name, so that a neuron's candidates depend on no other neuron.
        self._names = sorted(
            filter(can_be_quoted, {name for shown in facts.shown for name in shown})
        )
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._held = lru_cache(maxsize=None)(self._find_held)

    def find(self, places: Sequence[int], x: np.ndarray) -> RoleCandidates:
        """Return the candidates of the samples at some places among those of the facts.

        x: float64 [visual tokens], activations, centered. They decide which pairs are candidates.
        """
        n_visual = [self._facts.n_visual[place] for place in places]
        starts = np.cumsum([0, *n_visual])
        concepts = {kind: self._concepts(kind, places, starts) for kind in _CONCEPT_KINDS}
        atoms = [Atom("shows", (self._names[one],)) for one, _ in concepts["shows"]]
        rows = [row for _, row in concepts["shows"]]
        if sum(n > 0 for n in n_visual) >= self._min_samples:
            areas = np.concatenate([self._facts.areas[place] for place in places], axis=1)
            atoms += [Atom("area", (name,)) for name in AREAS]
            rows += [np.flatnonzero(mask) for mask in areas]
        n_paired = len(rows)
        edges = self._distinct(concepts["edge"], places, starts, x)
        atoms += [Atom("edge", (self._names[one],)) for one, _ in edges]
        atoms += [Atom("near", (self._names[one],)) for one, _ in concepts["near"]]
        rows += [row for _, row in (*edges, *concepts["near"])]
        holds = np.zeros((len(rows), len(x)), bool)
        for number, row in enumerate(rows):
            holds[number, row] = True
        first, groups = _equal_columns(holds)
        holds = holds[:, first]
        is_in = np.zeros((len(first), len(places)), np.float32)
        is_in[groups, np.repeat(np.arange(len(places)), n_visual)] = 1
        sizes = np.maximum(holds @ np.bincount(groups, minlength=len(first)), 1)
        gains = np.abs(holds @ np.bincount(groups, x, len(first))) / sizes**0.5
        best = sorted(np.argsort(-np.round(gains[:n_paired], 9), kind="stable")[:_PAIRED].tolist())
        is_concept = np.array([atom.kind == "shows" for atom in atoms[:n_paired]], bool)
        pairs, paired = self._pairs(holds[:n_paired], is_in, is_concept, best)
        rows = [np.flatnonzero(one) for one in holds]
        return RoleCandidates(atoms, pairs, [*rows, *paired], groups, len(first))

    def _pairs(
        self, holds: np.ndarray, is_in: np.ndarray, is_concept: np.ndarray, best: Sequence[int]
    ) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
        """Return the pairs of the best atoms with all others, and the groups of each."""
        lengths = holds.sum(axis=1)
        is_best = np.isin(np.arange(len(holds)), best)
        pairs, paired = [], []
        for a in best:
            row = np.flatnonzero(holds[a])
            is_new = is_concept | is_concept[a]
            is_new &= ~is_best | (np.arange(len(holds)) > a)
            others = np.flatnonzero(is_new)
            both = holds[others][:, row]
            # A pair that holds exactly where one of its atoms does adds nothing.
            counts = both.sum(axis=1)
            is_new = (counts < np.minimum(len(row), lengths[others])) & (counts > 0)
            others, both = others[is_new], both[is_new]
            n_samples = (both.astype(np.float32) @ is_in[row] > 0).sum(axis=1)
            for number in np.flatnonzero(n_samples >= self._min_samples).tolist():
                b = int(others[number])
                pairs.append((min(a, b), max(a, b)))
                paired.append(row[both[number]])
        return pairs, paired

    def _concepts(
        self, kind: Kind, places: Sequence[int], starts: np.ndarray
    ) -> list[tuple[int, np.ndarray]]:
        """Return the concepts of an atom's kind, by number, with the tokens that it holds for."""
        numbers, tokens, _ = self._gather(kind, places, starts)
        order = np.argsort(numbers, kind="stable")
        numbers, tokens = numbers[order], tokens[order]
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
        sample = np.searchsorted(starts, tokens, side="right")
        is_new = (np.diff(numbers, prepend=-1) != 0) | (np.diff(sample, prepend=-1) != 0)
        n_samples = np.add.reduceat(is_new.astype(np.int64), firsts) if len(firsts) else firsts
        return [
            (int(numbers[start]), tokens[start:stop])
            for start, stop, n in zip(
                firsts.tolist(),
                [*firsts[1:].tolist(), len(tokens)],
                n_samples.tolist(),
                strict=False,
            )
            if n >= self._min_samples
        ]

    def _gather(
        self, kind: Kind, places: Sequence[int], starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [self._held(kind, place) for place in places]
        numbers, tokens, is_inside = (
            np.concatenate([np.zeros(0, dtype), *(part[n] for part in parts)])
            for n, dtype in enumerate((np.int64, np.int64, bool))
        )
        lengths = [len(part[0]) for part in parts]
        return numbers, tokens + np.repeat(starts[:-1], lengths), is_inside

    def _find_held(self, kind: Kind, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the concepts that hold in a sample, by number, the token of each, and whether the
        concept covers all of it."""
        found = self._facts.of_kind(kind, place)
        names = [name for name in found if name in self._numbers]
        if not names:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)
        cover = np.stack([found[name] for name in names])
        row, token = np.nonzero(cover > SHOWS)
        numbers = np.array([self._numbers[name] for name in names])
        return numbers[row], token, cover[row, token] >= COVERED

    def _distinct(
        self,
        edges: Sequence[tuple[int, np.ndarray]],
        places: Sequence[int],
        starts: np.ndarray,
        x: np.ndarray,
    ) -> list[tuple[int, np.ndarray]]:
        """Return the edges that a neuron responds to otherwise than to the inside of the concept.

        Any other edge is only where a concept covers less of a patch.
        """
        numbers, tokens, is_inside = self._gather("shows", places, starts)
        numbers, tokens = numbers[is_inside], tokens[is_inside]
        counts = np.bincount(numbers, minlength=len(self._names)).tolist()
        sums = np.bincount(numbers, x[tokens], len(self._names)).tolist()
        total = float(x.sum())
        distinct = []
        for number, edge in edges:
            at_edge, inside, n_inside = float(x[edge].sum()), sums[number], counts[number]
            n_outside = len(x) - n_inside - len(edge)
            if not n_inside or n_outside <= 0:
                continue
            outside = (total - inside - at_edge) / n_outside
            inner, outer = inside / n_inside - outside, at_edge / len(edge) - outside
            if abs(inner - outer) > _DISTINCT * max(abs(inner), abs(outer)):
                distinct.append((number, edge))
        return distinct


def _equal_columns(holds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one column of each group of equal ones, and the group of each column of `holds`."""
    packed = np.packbits(holds, axis=0)
    padded = np.zeros((packed.shape[1], -(-max(len(packed), 1) // 8) * 8), np.uint8)
    padded[:, : len(packed)] = packed.T
    mixed = np.zeros(len(padded), np.uint64)
    for words in padded.view(np.uint64).T:
        mixed = (mixed ^ words) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    _, first, groups = np.unique(mixed, return_index=True, return_inverse=True)
    return first, groups
