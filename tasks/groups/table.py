"""Make the rows of `group_speech` from what the subject says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from neuron_atlas.tasks.artifacts.grouped import GROUP_SPEECH
from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.groups.conditions import Condition
from neuron_atlas.tasks.groups.measures import SAYS
from neuron_atlas.tasks.groups.naming import Vocabulary
from neuron_atlas.tasks.groups.settings import NamedGroup
from neuron_atlas.tasks.groups.speech import Question, read_answer

Asked = Mapping[tuple[int, int], Sequence[tuple[Question, str | None]]]
"""Questions and answers by condition and sample."""


def speech_table(
    conditions: Sequence[Condition],
    pairs: Sequence[tuple[int, int]],
    texts: Sequence[str | None],
    truths: Mapping[int, Collection[tuple[str, str]]],
    vocabulary: Vocabulary,
    named: Mapping[str, NamedGroup],
    asked: Asked,
) -> pa.Table:
    """Return rows of `group_speech`.

    pairs: condition and sample of each text. texts: None where the output overflows. truths: kind
    and name of what is in each sample's image; samples whose truth is not known are left out.
    named: the groups whose words are counted.
    """
    rows = [
        conditions[condition].key
        | {"sample_id": sample_id}
        | _said(text, truths.get(sample_id), vocabulary, named)
        | _answered(asked.get((condition, sample_id), ()))
        for (condition, sample_id), text in zip(pairs, texts, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GROUP_SPEECH.schema)


def _said(
    text: str | None,
    truth: Collection[tuple[str, str]] | None,
    vocabulary: Vocabulary,
    named: Mapping[str, NamedGroup],
) -> dict[str, Any]:
    words = words_of(text or "")
    said = vocabulary.named(text or "")
    counts: list[tuple[str, int, int, int]] = []
    for kind in vocabulary.kinds if truth is not None else ():
        present = {name for its_kind, name in truth or () if its_kind == kind}
        counts.append((kind, len(said[kind]), len(said[kind] & present), len(present)))
    for name, group in named.items():
        if group.words:
            found = {one.casefold() for one in group.words} & set(words)
            counts.append((f"{SAYS}{name}", int(bool(found)), 0, 0))
    columns = zip(*counts, strict=True) if counts else ((), (), (), ())
    columns_by_name = dict(
        zip(("kind", "named", "right", "present"), map(list, columns), strict=True)
    )
    return columns_by_name | {
        "text": text or "",
        "n_words": len(words),
        "status": "overflow" if text is None else "ok",
    }


def _answered(asked: Sequence[tuple[Question, str | None]]) -> dict[str, int]:
    answers = [(question.is_there, read_answer(text)) for question, text in asked]
    return {
        "asked": len(answers),
        "answered": sum(answer is not None for _, answer in answers),
        "yes": sum(answer is True for _, answer in answers),
        "correct": sum(answer is is_there for is_there, answer in answers),
    }
