"""Add up the activations of many neurons over the tokens that show each concept.

All neurons of a call are added up together, by sparse matrix products: neurons share samples, and
a token shows few of the concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from neuron_atlas.tasks.concepts.presence import WordIndex, patch_coverages
from neuron_atlas.tasks.samples.catalog import Catalog, Sample, TrueConcept


@dataclass(frozen=True)
class TokenConcepts:
    """Presence of concepts in the tokens that have one role, of some samples in turn.

    names: all concepts, sorted. cells: where samples start among the cells, int64 [samples + 1]. A
    cell is one token, or all visual tokens of a sample whose concepts cover the whole image.
    tokens: number of tokens by cell. presence: 0-1, float64 [cells, concepts]. samples: 1 where a
    sample contains a concept, float64 [samples, concepts].
    """

    names: Sequence[str]
    cells: np.ndarray
    tokens: np.ndarray
    presence: csr_array
    samples: csr_array


@dataclass(frozen=True)
class ConceptSums:
    """Sums over the tokens of each neuron's samples, for one role. a: activation; c: presence.

    n, sum_a, sum_aa: [neurons]. names: all concepts, sorted. The other arrays have an entry for
    each neuron and each concept in its samples, at their positions in n and names. samples: number
    of the neuron's samples that contain the concept.
    """

    n: np.ndarray
    sum_a: np.ndarray
    sum_aa: np.ndarray
    names: Sequence[str]
    neuron: np.ndarray
    concept: np.ndarray
    samples: np.ndarray
    sum_c: np.ndarray
    sum_cc: np.ndarray
    sum_ca: np.ndarray

    def correlations(self) -> np.ndarray:
        """Return Pearson's r of each entry, float64; 0 if presence or activation is constant.

        r = (n Sca - Sc Sa) / sqrt((n Scc - Sc^2)(n Saa - Sa^2))
        """
        n, sum_a, sum_aa = (sums[self.neuron] for sums in (self.n, self.sum_a, self.sum_aa))
        variance_c = n * self.sum_cc - self.sum_c**2
        variance_a = n * sum_aa - sum_a**2
        varies = (variance_c > 1e-9) & (variance_a > 1e-12 * np.maximum(n * sum_aa, 1e-12))
        covariance = np.where(varies, n * self.sum_ca - self.sum_c * sum_a, 0)
        return covariance / np.sqrt(np.where(varies, variance_c * variance_a, 1))


def visual_concepts(catalog: Catalog, sample_ids: Sequence[int], words: WordIndex) -> TokenConcepts:
    """Return the concepts of the samples' visual tokens. words: of these samples.

    Without ground truth the concepts are the words of the text, and each covers the whole image.
    """
    samples = [catalog[sample_id] for sample_id in sample_ids]
    truths = [catalog.concepts(sample_id) for sample_id in sample_ids]
    n_visual = np.array([sample.n_visual for sample in samples], dtype=np.int64)
    has_truth = np.array([len(concepts) > 0 for concepts in truths], dtype=bool)
    cells = np.cumsum([0, *np.where(has_truth, n_visual, np.minimum(n_visual, 1))])
    tokens = np.repeat(np.where(has_truth, 1, n_visual), np.diff(cells))
    pairs = [
        (truth, sample)
        for sample, concepts in zip(samples, truths, strict=True)
        for truth in concepts
    ]
    of_truth = np.repeat(np.arange(len(samples)), [len(concepts) for concepts in truths])
    of_word = np.repeat(np.arange(len(samples)), np.diff(words.text_offsets))
    in_image = ~has_truth[of_word]
    of_word = of_word[in_image]
    names, truth_ids, word_ids = _number_names(
        [truth.name for truth, _ in pairs], words.names if len(of_word) else ()
    )
    word_ids = word_ids[words.texts[in_image]] if len(of_word) else word_ids
    has_cell = n_visual[of_word] > 0
    presence = _ones(cells[of_word[has_cell]], word_ids[has_cell], (len(tokens), len(names)))
    presence += _coverage(pairs, cells[of_truth], truth_ids, presence.shape)
    in_sample = _ones(
        np.append(of_truth, of_word), np.append(truth_ids, word_ids), (len(samples), len(names))
    )
    return TokenConcepts(names, cells, tokens, presence, in_sample)


def text_concepts(sample_ids: Sequence[int], words: WordIndex) -> TokenConcepts:
    """Return the words of the samples' text tokens. words: of these samples."""
    (token,) = np.nonzero(words.tokens >= 0)
    names, _, word_ids = _number_names((), words.names)
    concept = word_ids[words.tokens[token]]
    sample = np.repeat(np.arange(len(sample_ids)), np.diff(words.token_offsets))[token]
    return TokenConcepts(
        names,
        words.token_offsets,
        np.ones(len(words.tokens), np.int64),
        _ones(token, concept, (len(words.tokens), len(names))),
        _ones(sample, concept, (len(sample_ids), len(names))),
    )


def add_up(
    activations: Sequence[np.ndarray],
    neuron: np.ndarray,
    sample: np.ndarray,
    neurons: int,
    concepts: TokenConcepts,
) -> ConceptSums:
    """Return the sums of all neurons.

    activations: float32 [tokens], one array for each neuron and sample. neuron, sample: int64, the
    positions of both in the result and in `concepts`; neuron is sorted. Raises ValueError if an
    array and its sample have different numbers of tokens.
    """
    first, last = concepts.cells[sample], concepts.cells[sample + 1]
    n_cells = last - first
    cell = np.repeat(first - np.cumsum(n_cells) + n_cells, n_cells) + np.arange(n_cells.sum())
    tokens = concepts.tokens[cell]
    a = np.concatenate([*activations, np.empty(0, np.float32)]).astype(np.float64)
    lengths = np.array([len(one) for one in activations], dtype=np.int64)
    if not np.array_equal(lengths, _add_up(tokens, n_cells)):
        raise ValueError("a sample's activations and its tokens differ in number")
    in_neuron = np.cumsum([0, *np.bincount(neuron, n_cells, minlength=neurons)]).astype(np.int64)
    by_cell = csr_array((_add_up(a, tokens), cell, in_neuron), (neurons, len(concepts.tokens)))
    # The sums of each sample are computed once, and then added over each neuron's samples.
    of_sample = csr_array(
        (concepts.tokens.astype(np.float64), np.arange(len(concepts.tokens)), concepts.cells),
        (len(concepts.cells) - 1, len(concepts.tokens)),
    )
    of_neuron = csr_array((np.ones(len(sample)), (neuron, sample)), (neurons, of_sample.shape[0]))
    samples = (of_neuron @ concepts.samples).tocoo()
    sum_ca, sum_c, sum_cc = (
        # A product leaves out sums that are 0, so its entries may differ from those of `samples`.
        _look_up(sums, *samples.coords)
        for sums in (
            by_cell @ concepts.presence,
            of_neuron @ (of_sample @ concepts.presence),
            of_neuron @ (of_sample @ concepts.presence.power(2)),
        )
    )
    return ConceptSums(
        n=np.bincount(neuron, lengths, minlength=neurons),
        sum_a=np.bincount(neuron, _add_up(a, lengths), minlength=neurons),
        sum_aa=np.bincount(neuron, _add_up(a * a, lengths), minlength=neurons),
        names=concepts.names,
        neuron=samples.coords[0],
        concept=samples.coords[1],
        samples=samples.data,
        sum_c=sum_c,
        sum_cc=sum_cc,
        sum_ca=sum_ca,
    )


def _coverage(
    pairs: Sequence[tuple[TrueConcept, Sample]],
    first_cell: np.ndarray,
    names: np.ndarray,
    shape: tuple[int, int],
) -> csr_array:
    """Return the coverage of ground-truth concepts, float64 [cells, concepts].

    first_cell, names: where each of the `pairs` is in it.
    """
    rows, columns, values = [[np.empty(0, np.int64)] for _ in range(3)]
    for numbers, coverage in patch_coverages(pairs):
        concept, token = np.nonzero(coverage)
        rows.append(first_cell[numbers[concept]] + token)
        columns.append(names[numbers[concept]])
        values.append(coverage[concept, token].astype(np.float64))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(entries, shape=shape)


def _add_up(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the sum of each of several consecutive parts, float64."""
    sums = np.zeros(len(lengths))
    (some,) = np.nonzero(lengths)
    if len(some):
        sums[some] = np.add.reduceat(values, (np.cumsum(lengths) - lengths)[some])
    return sums


def _number_names(
    first: Sequence[str], second: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return all names, sorted, and the positions of two groups of names in them."""
    names = sorted({*first, *second})
    number = {name: position for position, name in enumerate(names)}
    ids = [np.array([number[name] for name in group], np.int64) for group in (first, second)]
    return names, ids[0], ids[1]


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Return a matrix with 1 at these positions, which may repeat."""
    matrix = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    matrix.data[:] = 1
    return matrix


def _look_up(matrix: csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the values at some positions, sorted by row. Unpacks a few rows at a time."""
    found = np.empty(len(rows))
    step = max(1, _UNPACKED // max(1, matrix.shape[1]))
    for first in range(0, matrix.shape[0], step):
        chosen = slice(*np.searchsorted(rows, (first, first + step)))
        unpacked = matrix[first : first + step].toarray()
        found[chosen] = unpacked[rows[chosen] - first, columns[chosen]]
    return found


_UNPACKED = 1 << 20
"""Numbers of a sparse matrix that are unpacked together."""
