"""Index the words of all texts: the word of each token, and the texts that contain each word."""

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
    """Index of the words of all texts.

    words: str [words], sorted. samples: int [texts], ascending sample_ids. n_visual: int [texts],
    visual tokens of each sample. tokens: int [all tokens], the word index of each token, texts
    concatenated. offsets: int [texts + 1], start of each text in tokens. contains: sparse int32
    [texts, words], 1 if the text contains the word.
    """

    words: np.ndarray
    samples: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray
    n_visual: np.ndarray
    contains: sparse.csr_array

    def rows(self, sample_ids: np.ndarray) -> np.ndarray:
        """Return the row of each sample in `contains` and `offsets`."""
        return np.searchsorted(self.samples, sample_ids)


def list_words(catalog: Catalog) -> pa.Table:
    """Return the `words` rows of a catalog's samples."""
    rows = [
        {
            "sample_id": sample_id,
            "n_visual": sample.n_visual,
            "words": [
                word or token.strip()
                for word, token in zip(token_words(sample), sample.tokens, strict=True)
            ],
        }
        for sample_id, sample in sorted(catalog.samples.items())
    ]
    return pa.Table.from_pylist(rows, schema=WORDS.schema)


def build_lexicon(words: pa.Table) -> Lexicon:
    """Index the words of a `words` table sorted by sample_id; number the words alphabetically."""
    lists = words["words"].combine_chunks()
    encoded = lists.flatten().dictionary_encode()
    distinct = np.array(encoded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(distinct)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    tokens = number[encoded.indices.to_numpy()]
    offsets = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    contains = sparse.csr_array(
        (np.ones(len(tokens), dtype=np.int32), tokens, offsets),
        shape=(len(words), len(distinct)),
        copy=True,  # sum_duplicates sorts the words within each text.
    )
    contains.sum_duplicates()
    contains.data[:] = 1
    return Lexicon(
        words=distinct[order],
        samples=words["sample_id"].to_numpy(),
        tokens=tokens,
        offsets=offsets,
        n_visual=words["n_visual"].to_numpy(),
        contains=contains,
    )
