"""The words of an explanation, and the words of the same samples that they are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.concepts.sentence import read_explanation

_COMMON = 0.5
"""Words in more than this share of the texts are not content words of a free explanation."""
_RATIO = 2.0
"""Words are about as frequent if their counts differ by at most this factor."""
_MOST_PROMOTED = 3
"""Promoted words that stand for an explanation whose words are in no text."""


@dataclass(frozen=True)
class Texts:
    """The words of all texts.

    words: for each sample the word of each text token. counts: tokens of each word. holders: the
    samples with each word, in the order of `words`.
    """

    words: Mapping[int, Sequence[str]]
    counts: Mapping[str, int]
    holders: Mapping[str, Sequence[int]]

    @staticmethod
    def from_table(table: pa.Table) -> Texts:
        """Read rows of `words`, in their order."""
        words = dict(zip(table["sample_id"].to_pylist(), table["words"].to_pylist(), strict=True))
        counts: Counter[str] = Counter()
        holders: dict[str, list[int]] = {}
        for sample_id, of_sample in words.items():
            counts.update(one for one in of_sample if words_of(one))
            for one in dict.fromkeys(of_sample):
                if words_of(one):
                    holders.setdefault(one, []).append(sample_id)
        return Texts(words, counts, holders)

    def content_words(self, explanation: str) -> tuple[str, ...]:
        """Return the words of an explanation that occur in the texts.

        Of a composed explanation these are the concepts that it shows and the words that it names;
        of another text all words that are in at most half of the texts.
        """
        formula = read_explanation(explanation)
        if formula is None:
            most = _COMMON * len(self.words)
            found = [one for one in words_of(explanation) if len(self.holders.get(one, ())) <= most]
        else:
            names = [
                name
                for term in formula.terms
                for atom in term.required
                if atom.kind in ("shows", "word")
                for name in atom.names
            ]
            found = [one for name in names for one in words_of(name)]
        return tuple(one for one in dict.fromkeys(found) if one in self.counts)

    def promoted_words(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Return the first promoted tokens that are words of the texts."""
        found = [one for token in tokens for one in words_of(token)]
        return tuple(one for one in dict.fromkeys(found) if one in self.counts)[:_MOST_PROMOTED]

    def holding(
        self, own: Collection[str], order: Sequence[int], without: Collection[int]
    ) -> Iterator[int]:
        """Yield the samples with a comparison (see `compared_tokens`), in the order given."""
        mine = {one for word in own for one in self.holders[word]}.difference(without)
        for sample_id in order:
            if sample_id in mine and self.compared_tokens(sample_id, own):
                yield sample_id

    def compared_tokens(
        self, sample_id: int, own: Collection[str]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each of the `own` words in a sample, its tokens and those of all other words
        in the sample that are about as frequent in the texts. Leaves out words without any."""
        of_sample = self.words[sample_id]
        counts = np.array([self.counts.get(one, 0) for one in of_sample], np.float64)
        is_own = np.array([one in own for one in of_sample], bool)
        pairs = []
        for word in dict.fromkeys(one for one in of_sample if one in own):
            ratio = counts / self.counts[word]
            others = ~is_own & (ratio >= 1 / _RATIO) & (ratio <= _RATIO)
            if others.any():
                mine = np.array([one == word for one in of_sample], bool)
                pairs.append((np.flatnonzero(mine), np.flatnonzero(others)))
        return pairs

    def changes(
        self, sample_id: int, own: Collection[str], token_changes: np.ndarray
    ) -> tuple[float, float]:
        """Return the mean change of the loss of a sample's own words and of those they are compared
        with. token_changes: float [n_text]."""
        pairs = self.compared_tokens(sample_id, own)
        values = token_changes.astype(np.float64)
        mine, others = zip(
            *((values[own_tokens].mean(), values[tokens].mean()) for own_tokens, tokens in pairs),
            strict=True,
        )
        return float(np.mean(mine)), float(np.mean(others))
