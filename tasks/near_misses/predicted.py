"""Find the samples of the dataset that an explanation predicts, as the concept simulator does.

The words that some explanations name are looked up once, in every sample; an explanation's samples
are then a union of few lists.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import CONCEPTS, DESCRIPTIONS, USABLE, list_rows, read_table
from neuron_atlas.tasks.artifacts.columns import TableSpec, column
from neuron_atlas.tasks.concepts.formula import Term
from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.concepts.sentence import read_explanation
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles, read_image_clusters
from neuron_atlas.tasks.simulate.terms import normalize_term, read_terms

_SAMPLES = pa.list_(pa.int32())

TERM_SAMPLES = TableSpec(
    "term_samples",
    pa.schema(
        [
            column("term", pa.string(), "normalized term of an explanation"),
            column("visual", _SAMPLES, "samples whose image shows it, ascending"),
            column("text", _SAMPLES, "samples whose text has it as a word, ascending"),
        ]
    ),
    key=("term",),
)


@dataclass(frozen=True)
class NamedTerms:
    """Normalized terms that an explanation names. visual: of images. text: words of texts."""

    visual: frozenset[str]
    text: frozenset[str]


@dataclass(frozen=True)
class TermIndex:
    """Samples with each term, ascending int32, by term."""

    visual: Mapping[str, np.ndarray]
    text: Mapping[str, np.ndarray]


def predicted_samples(explanation: str, index: TermIndex) -> np.ndarray:
    """Return the samples that an explanation predicts, int32, ascending.

    These are the samples with any named concept in the image, or any named word in the text. A
    composed explanation predicts the samples that have, for one of its terms, a name of each of the
    term's words and concepts; areas, sentences and exceptions are not looked at.
    """
    formula = read_explanation(explanation)
    if formula is None:
        terms = named_terms(explanation)
        return _union([_with_any(terms.visual, index.visual), _with_any(terms.text, index.text)])
    return _union([_with_term(term, index) for term in formula.terms])


def _with_term(term: Term, index: TermIndex) -> np.ndarray:
    by_term = index.visual if term.role == "visual" else index.text
    found = [_with_any(names, by_term) for names in _looked_up(term)]
    return reduce(np.intersect1d, found) if found else np.empty(0, np.int32)


def _with_any(terms: Collection[str], by_term: Mapping[str, np.ndarray]) -> np.ndarray:
    return _union([by_term[term] for term in terms if term in by_term])


def _union(found: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.empty(0, np.int32), *found]))


def _looked_up(term: Term) -> list[frozenset[str]]:
    """Return the normalized names of each required atom that is looked up in samples."""
    named = [atom for atom in term.required if atom.kind not in ("area", "sentence")]
    names = [frozenset(map(normalize_term, atom.names)) for atom in named]
    # A punctuation mark has no normalized name; nearly every text has it.
    return [its for its in names if "" not in its]


def named_terms(explanation: str) -> NamedTerms:
    """Return the terms that an explanation names, as they are looked up in samples."""
    formula = read_explanation(explanation)
    if formula is not None:
        by_role: dict[str, set[str]] = {"visual": set(), "text": set()}
        for term in formula.terms:
            by_role[term.role].update(*_looked_up(term))
        return NamedTerms(*map(frozenset, by_role.values()))
    terms = read_terms(explanation)
    words = {normalize_term(word) for term in terms.text for word in term.split()}
    return NamedTerms(terms.visual, frozenset(words))


def index_terms(
    explanations: Collection[str],
    descriptions: Path,
    concepts: Sequence[Path],
    clusters: ImageClusterFiles,
) -> pa.Table:
    """Return `term_samples` rows of the terms of all explanations, over the samples of one file of
    `descriptions`.

    An image shows its true concepts; in a source without ground truth, the terms of its text and
    its image clusters.
    """
    terms = [named_terms(text) for text in explanations]
    visual = frozenset().union(*(its.visual for its in terms))
    words = frozenset().union(*(its.text for its in terms))
    phrases: dict[str, list[str]] = {}
    for term in visual:
        phrases.setdefault(term.split()[0], []).append(term)
    columns = ["sample_id", "text", "n_visual", "status"]
    described = read_table(descriptions, DESCRIPTIONS, columns)
    described = described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))
    sample_ids = described["sample_id"].to_pylist()
    shown = _true_terms(concepts, sample_ids)
    clustered = read_image_clusters(clusters, sample_ids)
    in_image: dict[str, list[int]] = {}
    in_text: dict[str, list[int]] = {}
    for sample_id, text, n_visual in zip(
        *(described[name].to_pylist() for name in columns[:3]), strict=True
    ):
        text_words = [normalize_term(word) for word in words_of(text)]
        distinct = set(text_words)
        for word in distinct & words:
            in_text.setdefault(word, []).append(sample_id)
        if sample_id in shown:
            named = shown[sample_id] & visual
        else:
            whole = f" {' '.join(text_words)} " if n_visual else ""
            first = distinct & phrases.keys()
            named = {term for one in first for term in phrases[one] if f" {term} " in whole}
        named |= visual & set(map(normalize_term, clustered.get(sample_id, ())))
        for term in named:
            in_image.setdefault(term, []).append(sample_id)
    names = sorted({*in_image, *in_text})
    return pa.table(
        {
            "term": pa.array(names, pa.string()),
            "visual": pa.array([sorted(in_image.get(name, ())) for name in names], _SAMPLES),
            "text": pa.array([sorted(in_text.get(name, ())) for name in names], _SAMPLES),
        }
    )


def read_index(files: Sequence[Path], explanations: Collection[str]) -> TermIndex:
    """Read the samples of the terms of some explanations, from the files of all parts."""
    named = [named_terms(text) for text in explanations]
    terms = sorted({term for its in named for term in (*its.visual, *its.text)})
    found: dict[str, dict[str, list[np.ndarray]]] = {"visual": {}, "text": {}}
    for path in files:
        rows = read_table(path, TERM_SAMPLES, only=[("term", "in", terms)])
        for role, by_term in found.items():
            for term, ids in zip(rows["term"].to_pylist(), list_rows(rows[role]), strict=True):
                by_term.setdefault(term, []).append(ids)
    visual, text = (
        {term: np.concatenate(parts) for term, parts in by_term.items()}
        for by_term in found.values()
    )
    return TermIndex(visual, text)


def _true_terms(concepts: Sequence[Path], sample_ids: Sequence[int]) -> dict[int, set[str]]:
    """Return the terms that name the true concepts of each sample that has some."""
    columns = ["sample_id", "concept", "words"]
    rows = read_table(concepts, CONCEPTS, columns, sample_ids=sample_ids)
    shown: dict[int, set[str]] = {}
    for sample_id, name, words in zip(*(rows[name].to_pylist() for name in columns), strict=True):
        shown.setdefault(sample_id, set()).update(map(normalize_term, (name, *words)))
    return shown
