"""Let the subject describe samples, and answer questions, under many conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from PIL import Image

from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.effects.intervention import InterventionError, intervening
from neuron_atlas.tasks.groups.conditions import Condition
from neuron_atlas.tasks.subject.generate import generate_descriptions
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint

_ANSWER_TOKENS = 4
_POPE = "Is there {article} {name} in the image?"


@dataclass(frozen=True)
class Question:
    """A yes/no question about a sample, with the right answer."""

    sample_id: int
    name: str
    is_there: bool

    @property
    def text(self) -> str:
        """The question as POPE asks it (Li et al., EMNLP 2023)."""
        return _POPE.format(article="an" if self.name[0] in "aeiou" else "a", name=self.name)


@dataclass(frozen=True)
class Prompt:
    """One generation: the condition by its number, and the images."""

    condition: int
    images: Sequence[Image.Image]


def generate_under(
    subject: Subject,
    conditions: Sequence[Condition],
    prompts: Sequence[Prompt],
    hook_point: HookPoint,
    max_new_tokens: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> list[str | None]:
    """Return the text that each prompt's condition generates; None if the output overflows.

    One batch has several conditions: each changes its own rows. on_batch: called with the number of
    prompts of each batch.
    """
    texts: list[str | None] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        texts += _generate(subject, conditions, batch, hook_point, max_new_tokens)
        on_batch(len(batch))
    return texts


def ask_under(
    subject: Subject,
    conditions: Sequence[Condition],
    questions: Sequence[Question],
    images: Mapping[int, Sequence[Image.Image]],
    hook_point: HookPoint,
    batch_size: int,
) -> list[list[str | None]]:
    """Return the answers of each condition to each question; None if the output overflows."""
    answers: list[list[str | None]] = [["" for _ in questions] for _ in conditions]
    # A batch has one question text, because the subject's prompt has one.
    order = sorted(range(len(questions)), key=lambda number: questions[number].text)
    for text, numbers in _by_text(order, questions):
        asked = replace(subject, settings=replace(subject.settings, question=text))
        pairs = [(at, number) for at in range(len(conditions)) for number in numbers]
        prompts = [Prompt(at, images[questions[number].sample_id]) for at, number in pairs]
        found = generate_under(asked, conditions, prompts, hook_point, _ANSWER_TOKENS, batch_size)
        for (at, number), answer in zip(pairs, found, strict=True):
            answers[at][number] = answer
    return answers


def read_answer(text: str | None) -> bool | None:
    """Return whether an answer begins with yes (True) or no (False); None if it does not."""
    first = (words_of(text or "") or [""])[0]
    return {"yes": True, "no": False}.get(first)


def draw_questions(
    sample_id: int, present: Sequence[str], absent: Sequence[str], count: int, seed: int
) -> list[Question]:
    """Draw `count` questions about a sample: half about what is there, half about what is not.

    Fewer, if there are too few names, with as many about what is there as about what is not.
    """
    rng = np.random.default_rng([seed, sample_id])
    each = min(count // 2, len(present), len(absent))
    return [
        Question(sample_id, str(name), is_there)
        for names, is_there in ((sorted(present), True), (sorted(absent), False))
        for name in rng.choice(names, size=each, replace=False)
        if each
    ]


def _by_text(
    order: Sequence[int], questions: Sequence[Question]
) -> Iterator[tuple[str, list[int]]]:
    for text, numbers in groupby(order, key=lambda number: questions[number].text):
        yield text, list(numbers)


def _generate(
    subject: Subject,
    conditions: Sequence[Condition],
    batch: Sequence[Prompt],
    hook_point: HookPoint,
    max_new_tokens: int,
) -> list[str | None]:
    rows: dict[int, list[int]] = {}
    for row, prompt in enumerate(batch):
        rows.setdefault(prompt.condition, []).append(row)
    changes = [
        one
        for condition, its in rows.items()
        for one in conditions[condition].interventions(None if len(rows) == 1 else its)
    ]
    try:
        with intervening(subject, changes, hook_point) if changes else nullcontext():
            said = generate_descriptions(
                subject, [prompt.images for prompt in batch], max_new_tokens
            )
    except InterventionError:
        if len(batch) == 1:
            return [None]
        # The other conditions of the batch are not to blame.
        return [
            text
            for prompt in batch
            for text in _generate(subject, conditions, [prompt], hook_point, max_new_tokens)
        ]
    return [text for text, _ in said]
