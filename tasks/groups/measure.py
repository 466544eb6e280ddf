"""Measure some samples under all conditions: losses, descriptions and answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from neuron_atlas.tasks.groups.conditions import Condition
from neuron_atlas.tasks.groups.losses import measure_losses
from neuron_atlas.tasks.groups.naming import OBJECT, Vocabulary
from neuron_atlas.tasks.groups.settings import NamedGroup
from neuron_atlas.tasks.groups.speech import (
    Prompt,
    Question,
    ask_under,
    draw_questions,
    generate_under,
    read_answer,
)
from neuron_atlas.tasks.groups.table import Asked, speech_table
from neuron_atlas.tasks.groups.words import classify_tokens
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint

_ASKED_KINDS = (OBJECT, "shape")
"""Kinds of things of which "Is there a ... in the image?" can be asked."""


@dataclass(frozen=True)
class Plan:
    """What is measured of some samples.

    sample_ids: all of them. described: those that the subject describes and is asked about. truths:
    kind and name of what is in each image, where it is known. questions: for each sample described.
    """

    sample_ids: Sequence[int]
    described: Sequence[int]
    truths: Mapping[int, Collection[tuple[str, str]]]
    vocabulary: Vocabulary
    named: Mapping[str, NamedGroup]
    questions: int
    max_new_tokens: int
    seed: int


def measure(
    subject: Subject,
    plan: Plan,
    catalog: Catalog,
    conditions: Sequence[Condition],
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> tuple[pa.Table, pa.Table]:
    """Return rows of `group_losses` and of `group_speech`, for each condition and sample.

    The rows of a sample do not depend on the other samples. on_batch: called with the number of
    samples of each batch. Raises SubjectError and SampleError.
    """
    classes = {
        one: classify_tokens(
            catalog[one],
            plan.vocabulary.words(plan.truths[one]) if one in plan.truths else None,
        )
        for one in plan.sample_ids
    }
    losses = measure_losses(
        subject, plan.sample_ids, catalog, classes, conditions, hook_point, batch_size, on_batch
    )
    images = {one: catalog.open_images(one) for one in plan.described}
    pairs = [(at, one) for at in range(len(conditions)) for one in plan.described]
    prompts = [Prompt(at, images[one]) for at, one in pairs]
    texts = generate_under(
        subject, conditions, prompts, hook_point, plan.max_new_tokens, batch_size
    )
    asked = _ask(subject, plan, conditions, images, hook_point, batch_size)
    speech = speech_table(conditions, pairs, texts, plan.truths, plan.vocabulary, plan.named, asked)
    return losses, speech


def _ask(
    subject: Subject,
    plan: Plan,
    conditions: Sequence[Condition],
    images: Mapping[int, Sequence],
    hook_point: HookPoint,
    batch_size: int,
) -> Asked:
    """Ask the intact subject first: a sample whose questions it answers with neither yes nor no has
    no questions."""
    questions = [one for sample_id in plan.described for one in _questions(plan, sample_id)]
    if not questions:
        return {}
    (first,) = ask_under(subject, conditions[:1], questions, images, hook_point, batch_size)
    answered = {
        question.sample_id
        for question, text in zip(questions, first, strict=True)
        if read_answer(text) is not None
    }
    questions = [one for one in questions if one.sample_id in answered]
    answers = ask_under(subject, conditions, questions, images, hook_point, batch_size)
    asked: dict[tuple[int, int], list[tuple[Question, str | None]]] = {}
    for at, of_condition in enumerate(answers):
        for question, text in zip(questions, of_condition, strict=True):
            asked.setdefault((at, question.sample_id), []).append((question, text))
    return asked


def _questions(plan: Plan, sample_id: int) -> list[Question]:
    if sample_id not in plan.truths:
        return []
    for kind in _ASKED_KINDS:
        if kind in plan.vocabulary.kinds:
            present = [name for its_kind, name in plan.truths[sample_id] if its_kind == kind]
            absent = sorted({*plan.vocabulary.names(kind)} - {*present})
            return draw_questions(sample_id, present, absent, plan.questions, plan.seed)
    return []
