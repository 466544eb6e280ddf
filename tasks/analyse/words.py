"""The words of all texts: which one each token belongs to, and how many texts have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse

from neuron_atlas.tasks.artifacts import WORDS
from neuron_atlas.tasks.concepts.presence import token_words
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Lexicon:
    """Words by number, and where they stand.

    samples: int [texts], ascending sample_ids. tokens: int [all tokens], the word of each token of
    each text, one text after the other; offsets: int [texts + 1] into it. present: bool sparse
    [texts, words].
    """

    words: np.ndarray
    samples: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray
    present: sparse.csr_array

    def rows(self, sample_ids: np.ndarray) -> np.ndarray:
        """The row of each sample in `present` and `offsets`."""
        return np.searchsorted(self.samples, sample_ids)


def list_words(catalog: Catalog) -> pa.Table:
    """The `words` rows of a catalog's samples."""
    rows = [
        {
            "sample_id": sample_id,
            "words": [
                word or token.strip()
                for word, token in zip(token_words(sample), sample.tokens, strict=True)
            ],
        }
        for sample_id, sample in sorted(catalog.samples.items())
    ]
    return pa.Table.from_pylist(rows, schema=WORDS.schema)


def lexicon(words: pa.Table) -> Lexicon:
    """Number the words of a `words` table, in the order of the alphabet."""
    lists = words["words"].combine_chunks()
    spoken = lists.flatten().dictionary_encode()
    known = np.array(spoken.dictionary.to_pylist(), dtype=object)
    order = np.argsort(known)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    tokens = number[spoken.indices.to_numpy()]
    offsets = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    present = sparse.csr_array(
        (np.ones(len(tokens), dtype=np.int32), tokens, offsets),
        shape=(len(words), len(known)),
        copy=True,  # For what follows sorts the words within each text.
    )
    present.sum_duplicates()
    present.data[:] = 1
    return Lexicon(known[order], words["sample_id"].to_numpy(), tokens, offsets, present)
