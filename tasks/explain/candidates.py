"""List the atoms, and pairs of atoms, that a neuron's samples offer to a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from scipy.sparse import csr_array

from neuron_atlas.tasks.concepts.formula import Atom, Role
from neuron_atlas.tasks.concepts.predict import TokenFacts
from neuron_atlas.tasks.explain.image_candidates import ImageFinder
from neuron_atlas.tasks.explain.role_candidates import no_candidates
from neuron_atlas.tasks.explain.text_candidates import TextFinder

_VISUAL: Role = "visual"
_TEXT: Role = "text"


@dataclass(frozen=True)
class Candidates:
    """Conditions on the tokens of one neuron's samples, single atoms first.

    atoms: the single atoms, with the role of each. members: the atoms of each candidate. masks: 1
    where a candidate holds, float64 [candidates, groups]. groups: group of each token, int64
    [tokens], visual tokens of all samples first. No candidate holds for a part of a group.
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
        self._facts = facts
        self._image = ImageFinder(facts, min_samples)
        self._text = TextFinder(facts, min_samples, classes)

    def find(
        self, sample_ids: Sequence[int], x: np.ndarray, total: int, roles: Sequence[Role]
    ) -> Candidates:
        """Return a neuron's candidates of some roles that hold in at least `min_samples` samples.

        x: float64 [tokens], its activations, centered; the first `total` are those of the visual
        tokens. They decide which pairs of atoms of an image are candidates.
        """
        places = [self._facts.place[sample_id] for sample_id in sample_ids]
        image, text = no_candidates(total), no_candidates(len(x) - total)
        if "visual" in roles:
            image = self._image.find(places, x[:total])
        if "text" in roles:
            text = self._text.find(places)
        n_image, n_text = len(image.atoms), len(text.atoms)
        members: list[tuple[int, ...]] = [(number,) for number in range(n_image + n_text)]
        members += [*image.pairs, *((n_image + a, n_image + b) for a, b in text.pairs)]
        parts = [
            (image.rows[:n_image], 0),
            (text.rows[:n_text], image.n_groups),
            (image.rows[n_image:], 0),
            (text.rows[n_text:], image.n_groups),
        ]
        columns = [np.concatenate([np.zeros(0, np.int64), *rows]) + first for rows, first in parts]
        stops = np.cumsum([0, *(len(row) for rows, _ in parts for row in rows)])
        indices = np.concatenate(columns)
        masks = csr_array(
            (np.ones(len(indices)), indices, stops),
            (len(members), image.n_groups + text.n_groups),
        )
        return Candidates(
            [*image.atoms, *text.atoms],
            [*repeat(_VISUAL, n_image), *repeat(_TEXT, n_text)],
            members,
            masks,
            np.concatenate([image.groups, text.groups + image.n_groups]),
        )
