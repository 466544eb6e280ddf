"""List the atoms, and pairs of atoms, that a neuron's samples offer to a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from scipy.sparse import csr_array

from neuron_atlas.tasks.concepts.borders import COVERED, SHOWS
from neuron_atlas.tasks.concepts.formula import AREAS, SENTENCES, Atom, Kind, Role
from neuron_atlas.tasks.concepts.predict import TokenFacts
from neuron_atlas.tasks.concepts.sentence import can_be_quoted

_DISTINCT = 0.3
"""Difference between the responses to the edge and to the inside of a concept, over the larger one,
above which the edge is an atom."""
_PAIRED = 12
"""Atoms of an image whose pairs with all others are candidates: the best ones."""
_CONCEPT_KINDS: tuple[Kind, ...] = ("shows", "edge", "near")
_TEXT_KINDS: tuple[Kind, ...] = ("word", "after", "before", "sentence")
_VISUAL: Role = "visual"
_TEXT: Role = "text"
_TEXT_PAIRS: tuple[tuple[Kind, Kind], ...] = (
    *(("word", "after"), ("word", "before"), ("word", "sentence")),
    *(("after", "before"), ("after", "sentence"), ("before", "sentence")),
)


@dataclass(frozen=True)
class Candidates:
    """Conditions on the tokens of one neuron's samples, single atoms first.

    atoms: the single atoms, with the role of each. members: the atoms of each candidate. masks: 1
    where a candidate holds, float64 [candidates, groups]. groups: group of each token, int64
    [tokens], visual tokens of all samples first. No candidate tells the tokens of a group apart.
    """

    atoms: Sequence[Atom]
    roles: Sequence[Role]
    members: Sequence[tuple[int, ...]]
    masks: csr_array
    groups: np.ndarray

    def of_role(self, role: Role) -> Candidates:
        """Return the candidates of one role."""
        chosen = [n for n, atoms in enumerate(self.members) if self.roles[atoms[0]] == role]
        numbers = {
            atom: n for n, atom in enumerate(a for a, r in enumerate(self.roles) if r == role)
        }
        return Candidates(
            [self.atoms[atom] for atom in numbers],
            [role] * len(numbers),
            [tuple(numbers[atom] for atom in self.members[n]) for n in chosen],
            self.masks[chosen],
            self.groups,
        )


class CandidateFinder:
    """Finds the candidates of neurons whose samples are among those of `facts`.

    classes: words that can be named together, as one atom.
    """

    def __init__(
        self, facts: TokenFacts, min_samples: int, classes: Sequence[Sequence[str]] = ()
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
        self._inside = [
            {name: np.flatnonzero(cover >= COVERED) for name, cover in shown.items()}
            for shown in facts.shown
        ]
        # A search takes a patch to show a concept or not.
        self._holding = {
            kind: [
                {
                    name: np.flatnonzero(cover > SHOWS)
                    for name, cover in facts.of_kind(kind, place).items()
                }
                for place in range(len(facts.n_visual))
            ]
            for kind in _CONCEPT_KINDS
        }

    def find(
        self, sample_ids: Sequence[int], x: np.ndarray, total: int, roles: Sequence[Role]
    ) -> Candidates:
        """Return a neuron's candidates of some roles that hold in at least `min_samples` samples.

        x: float64 [tokens], its activations, centered; the first `total` are those of the visual
        tokens. They decide which pairs of atoms of an image are candidates.
        """
        places = [self._facts.place[sample_id] for sample_id in sample_ids]
        n_visual = [self._facts.n_visual[place] for place in places]
        n_text = len(x) - total
        visual_atoms, visual_members, visual = [], [], []
        groups, n_visual_groups = np.zeros(total, np.int64), 1
        if "visual" in roles:
            visual_atoms, visual_members, visual = self._visual(places, n_visual, x[:total])
            groups, n_visual_groups = np.arange(total), total
        text_atoms, text_members, text = [], [], []
        text_groups, n_text_groups = np.zeros(n_text, np.int64), 1
        if "text" in roles:
            parts = self._text(places, len(visual_atoms), n_visual_groups)
            text_atoms, text_members, text, text_groups, n_text_groups = parts
        role_of: list[Role] = [*repeat(_VISUAL, len(visual_atoms)), *repeat(_TEXT, len(text_atoms))]
        singles = [visual[: len(visual_atoms)], text[: len(text_atoms)]]
        pairs = [visual[len(visual_atoms) :], text[len(text_atoms) :]]
        rows = [*singles[0], *singles[1], *pairs[0], *pairs[1]]
        members: list[tuple[int, ...]] = [
            (number,) for number in range(len(visual_atoms) + len(text_atoms))
        ]
        members += [*visual_members, *text_members]
        lengths = np.array([len(row) for row in rows], np.int64)
        columns = np.concatenate([np.zeros(0, np.int64), *rows])
        masks = csr_array(
            (np.ones(len(columns)), columns, np.cumsum([0, *lengths])),
            (len(rows), n_visual_groups + n_text_groups),
        )
        groups = np.concatenate([groups, text_groups + n_visual_groups])
        return Candidates([*visual_atoms, *text_atoms], role_of, members, masks, groups)

    def _visual(
        self, places: Sequence[int], n_visual: Sequence[int], x: np.ndarray
    ) -> tuple[list[Atom], list[tuple[int, int]], list[np.ndarray]]:
        starts = np.cumsum([0, *n_visual])
        atoms, rows = self._concepts("shows", places, starts)
        areas = [np.zeros((len(AREAS), 0), bool), *(self._facts.areas[place] for place in places)]
        in_area = np.concatenate(areas, axis=1)
        if sum(n > 0 for n in n_visual) >= self._min_samples:
            for name, mask in zip(AREAS, in_area, strict=True):
                atoms.append(Atom("area", (name,)))
                rows.append(np.flatnonzero(mask))
        gains = np.array([abs(x[row].sum()) / max(1, len(row)) ** 0.5 for row in rows])
        best = sorted(np.argsort(-np.round(gains, 9), kind="stable")[:_PAIRED].tolist())
        dense = np.zeros((len(rows), len(x)), bool)
        for number, row in enumerate(rows):
            dense[number, row] = True
        sample_of = np.repeat(np.arange(len(places)), n_visual)
        is_concept = np.array([atom.kind == "shows" for atom in atoms], bool)
        is_best = np.isin(np.arange(len(rows)), best)
        members, paired = [], []
        for a in best:
            row = rows[a]
            both = dense[:, row]
            # A pair that holds exactly where one of its atoms does says nothing more.
            counts = both.sum(1)
            is_new = (counts < np.minimum(len(row), [len(one) for one in rows])) & (counts > 0)
            firsts = np.flatnonzero(np.diff(sample_of[row], prepend=-1))
            n_samples = np.logical_or.reduceat(both, firsts, axis=1).sum(1) if len(row) else counts
            is_new &= (n_samples >= self._min_samples) & (is_concept | is_concept[a])
            is_new &= ~is_best | (np.arange(len(rows)) > a)
            for b in np.flatnonzero(is_new).tolist():
                members.append((min(a, b), max(a, b)))
                paired.append(row[both[b]])
        for kind in _CONCEPT_KINDS[1:]:
            for atom, row in zip(*self._concepts(kind, places, starts), strict=True):
                if kind != "edge" or self._is_distinct(atom.names[0], places, starts, x, row):
                    atoms.append(atom)
                    rows.append(row)
        return atoms, members, [*rows, *paired]

    def _concepts(
        self, kind: Kind, places: Sequence[int], starts: np.ndarray
    ) -> tuple[list[Atom], list[np.ndarray]]:
        """Return the atoms of a kind that name a concept, by name, with the tokens of each."""
        by_name: dict[str, list[np.ndarray]] = {}
        for place, start in zip(places, starts.tolist(), strict=False):
            for name, tokens in self._holding[kind][place].items():
                if len(tokens) and can_be_quoted(name):
                    by_name.setdefault(name, []).append(tokens + start)
        names = [name for name in sorted(by_name) if len(by_name[name]) >= self._min_samples]
        return [Atom(kind, (name,)) for name in names], [
            np.concatenate(by_name[name]) for name in names
        ]

    def _is_distinct(
        self, name: str, places: Sequence[int], starts: np.ndarray, x: np.ndarray, edge: np.ndarray
    ) -> bool:
        """Return whether a neuron responds to the edge of a concept otherwise than to its inside.

        If it does not, the edge is only where a concept covers less of a patch.
        """
        parts = [
            self._inside[place][name] + start
            for place, start in zip(places, starts.tolist(), strict=False)
            if name in self._inside[place]
        ]
        inside = np.concatenate([np.zeros(0, np.int64), *parts])
        n_outside = len(x) - len(inside) - len(edge)
        if not len(inside) or n_outside <= 0:
            return False
        sums = [float(x[inside].sum()), float(x[edge].sum())]
        outside = (float(x.sum()) - sum(sums)) / n_outside
        inner, outer = sums[0] / len(inside) - outside, sums[1] / len(edge) - outside
        return abs(inner - outer) > _DISTINCT * max(abs(inner), abs(outer))

    def _text(
        self, places: Sequence[int], first_atom: int, first_group: int
    ) -> tuple[list[Atom], list[tuple[int, int]], list[np.ndarray], np.ndarray, int]:
        """Return atoms, pairs, the groups of each, the group of each token, and their number."""
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
        members, paired = [], []
        size = len(self._order) + len(SENTENCES) + 1
        for one, other in _TEXT_PAIRS:
            both = (ids[one] >= 0) & (ids[other] >= 0)
            joint = np.where(both, ids[one] * size + ids[other], -1)
            for value, row in self._groups(joint, is_in):
                a, b = numbers[one, value // size], numbers[other, value % size]
                # A pair that holds exactly where one of its atoms does says nothing more.
                if len(row) < min(len(rows[a]), len(rows[b])):
                    members.append((first_atom + a, first_atom + b))
                    paired.append(row)
        rows = [row + first_group for row in (*rows, *paired)]
        return atoms, members, rows, group, len(units)

    def _add_classes(
        self,
        kind: Kind,
        numbers: Mapping[tuple[str, int], int],
        atoms: list[Atom],
        rows: list[np.ndarray],
    ) -> None:
        """Add an atom for each class of which the samples have at least two words."""
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
