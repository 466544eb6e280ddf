"""Restrict the evidence of neurons to single meanings: to the samples of one cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from neuron_atlas.tasks.concepts.presence import token_words
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.samples.catalog import Sample

Members = Mapping[int, Mapping[int, frozenset[int]]]
"""Sample_ids of the exemplars of each meaning, by neuron and meaning, ascending."""


@dataclass(frozen=True)
class MeaningEvidence:
    """Evidence of one meaning of a neuron.

    evidence: the neuron's, without samples of other meanings. n_exemplars: exemplars of the
    meaning, in all purposes. left_out: random samples and near misses of other meanings.
    """

    meaning: int
    evidence: Evidence
    n_exemplars: int
    left_out: tuple[int, ...] = ()


def read_members(meanings: pa.Table) -> Members:
    """Return the members of the meanings of one layer's neurons. meanings: rows of `meanings`."""
    found: dict[int, dict[int, set[int]]] = {}
    rows = zip(
        *(meanings[name].to_pylist() for name in ("neuron", "meaning", "sample_id")), strict=True
    )
    for neuron, meaning, sample_id in sorted(rows):
        found.setdefault(neuron, {}).setdefault(meaning, set()).add(sample_id)
    return {
        neuron: {meaning: frozenset(ids) for meaning, ids in its.items()}
        for neuron, its in found.items()
    }


def split_by_meaning(
    evidence: Sequence[Evidence],
    members: Members,
    samples: Mapping[int, Sample],
    strong_share: float,
) -> list[MeaningEvidence]:
    """Return the evidence of each meaning of each neuron.

    A random sample or near miss with a strong peak, from `strong_share` of the neuron's maximum,
    has the meaning whose exemplars most often peak at the same word. If none of them does, it has
    no known meaning. It is left out of all other meanings: there it would be neither a hit nor a
    miss. Samples without a strong peak stay in all. samples: texts of the samples, by id.
    """
    found = []
    for one in evidence:
        its = members.get(one.neuron, {})
        words = {
            meaning: Counter(
                _peak_word(each, samples) for each in one.exemplars if each.sample_id in ids
            )
            for meaning, ids in its.items()
        }
        others = [*one.random, *one.near_misses]
        meaning_of = {
            each.sample_id: _nearest(_peak_word(each, samples), words)
            for each in others
            if _peak(each) >= strong_share * one.scale > 0
        }
        for meaning, ids in its.items():
            left_out = {each for each, nearest in meaning_of.items() if nearest != meaning}
            mine = replace(
                one,
                exemplars=tuple(each for each in one.exemplars if each.sample_id in ids),
                random=tuple(each for each in one.random if each.sample_id not in left_out),
                near_misses=tuple(
                    each for each in one.near_misses if each.sample_id not in left_out
                ),
            )
            found.append(MeaningEvidence(meaning, mine, len(ids), tuple(sorted(left_out))))
    return found


def _nearest(word: str | None, words: Mapping[int, Counter[str | None]]) -> int | None:
    """Return the meaning with the most exemplars at a word; None if no exemplar peaks there."""
    best = max(words, key=lambda meaning: words[meaning][word])
    return best if word is not None and words[best][word] else None


def _peak(record: ActivationRecord) -> float:
    return max(record.visual.max(initial=-float("inf")), record.text.max(initial=-float("inf")))


def _peak_word(record: ActivationRecord, samples: Mapping[int, Sample]) -> str | None:
    """Return the word at which a sample peaks; None if it peaks in the image."""
    if not len(record.text) or record.text.max() <= record.visual.max(initial=-float("inf")):
        return None
    sample = samples[record.sample_id]
    token = int(record.text.argmax())
    return token_words(sample)[token] or sample.tokens[token].strip()
