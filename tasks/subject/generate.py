"""Let the subject answer its question about images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import BatchFeature

from neuron_atlas.tasks.models.out_of_memory import is_out_of_memory
from neuron_atlas.tasks.models.pretrained import first_lines
from neuron_atlas.tasks.subject.encode import adds_special_tokens, model_inputs, question_prompt
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import SubjectError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A text of one sample. finished: it ended before the maximum length. status, reason: of the
    `descriptions` row, if the subject could not answer."""

    text: str = ""
    finished: bool = True
    status: str = "ok"
    reason: str = ""


class _TooLongError(SubjectError):
    """A prompt leaves no tokens of the context for the answer."""


class _SplitError(SubjectError):
    """A batch has a prompt that shortens the answers. The other prompts must not depend on it."""


def answers(
    subject: Subject, images: Sequence[Sequence[Image.Image]], max_new_tokens: int
) -> list[Answer]:
    """Return the subject's answer to the question about each sample's images.

    A batch that fails is halved until the sample that fails is alone. Raises SubjectError if memory
    runs out with one sample.
    """
    try:
        generated = generate_descriptions(subject, images, max_new_tokens)
        return [Answer(text, finished) for text, finished in generated]
    except _TooLongError as error:
        if len(images) == 1:
            return [Answer(status="too_long", reason=str(error))]
    except Exception as error:
        is_full = isinstance(error, RuntimeError) and is_out_of_memory(error)
        if len(images) == 1 and is_full:
            raise SubjectError(
                "out of memory with a batch of one sample; lower describe.max_new_tokens, or use a "
                "device with more memory"
            ) from error
        if len(images) == 1:
            return [Answer(status="not_encoded", reason=first_lines(error))]
        if is_full:
            _log.warning("out of memory: describe halves a batch of %d", len(images))
            torch.cuda.empty_cache()
    middle = len(images) // 2
    return [
        *answers(subject, images[:middle], max_new_tokens),
        *answers(subject, images[middle:], max_new_tokens),
    ]


def generate_descriptions(
    subject: Subject, images: Sequence[Sequence[Image.Image]], max_new_tokens: int
) -> list[tuple[str, bool]]:
    """Return the subject's greedy answer to the question about each sample's images, and whether
    the answer is complete (it ended before `max_new_tokens`, and before the end of the context).

    Raises SubjectError for a sample that is too long, and any error of the processor.
    """
    generated: dict[int, tuple[str, bool]] = {}
    # In one call, a processor takes a list of images for every prompt or for none.
    for has_images in (True, False):
        chosen = [index for index, group in enumerate(images) if bool(group) == has_images]
        for batch in _batched(chosen, subject.batch_size(len(chosen))):
            groups = [list(images[index]) for index in batch]
            texts = _generate(subject, groups, has_images, max_new_tokens)
            generated |= dict(zip(batch, texts, strict=True))
    return [generated[index] for index in range(len(images))]


def _batched(chosen: Sequence[int], size: int) -> list[Sequence[int]]:
    return [chosen[start : start + size] for start in range(0, len(chosen), max(1, size))]


def _generate(
    subject: Subject, images: Sequence[list[Image.Image]], has_images: bool, max_new_tokens: int
) -> list[tuple[str, bool]]:
    prompts = [question_prompt(subject, len(group)) for group in images]
    made = model_inputs(
        subject,
        images if has_images else None,
        prompts,
        add_special_tokens=adds_special_tokens(subject, prompts[0]),
        padding=True,
        padding_side="left",
    )
    inputs = BatchFeature(made).to(subject.device, subject.model.dtype)
    length = inputs["input_ids"].shape[1]
    most = _most_new_tokens(subject, length, len(images), max_new_tokens)
    with torch.inference_mode():
        generated = subject.model.generate(**inputs, max_new_tokens=most, do_sample=False)
    new = generated[:, length:]
    ends = subject.model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    texts = subject.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [
        (text.strip(), not ends.isdisjoint(answer))
        for text, answer in zip(texts, new.tolist(), strict=True)
    ]


def _most_new_tokens(subject: Subject, length: int, n_samples: int, max_new_tokens: int) -> int:
    """Return how many tokens of the context are left for an answer, at most `max_new_tokens`."""
    if subject.context is None or length + max_new_tokens <= subject.context:
        return max_new_tokens
    if n_samples > 1:
        raise _SplitError("the longest prompt of this batch must be answered alone")
    if length >= subject.context:
        raise _TooLongError(
            f"the prompt has {length:,} tokens, and the subject's context is {subject.context:,} "
            "(max_position_embeddings)"
        )
    return subject.context - length
