"""Encode a sample as the subject's input, with the role of every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families import ProcessedSample, visual_mask
from neuron_atlas.tasks.subject.settings import SubjectError, TokenCountError
from neuron_atlas.tasks.subject.subject import Subject

VISUAL, TEXT, TEMPLATE = range(len(ROLES))
ROLE_INDEX = {role: index for index, role in enumerate(ROLES)}

_PREFIX = ("paligemma",)
"""Types whose tokens before the text attend to each other in both directions."""

_MODALITIES = "mm_token_type_ids"

_NOT_FOR_MODELS = ("num_image_tokens", "num_image_patches", "labels")
"""Outputs of some processors that their models do not take."""


@dataclass(frozen=True)
class EncodedSample:
    """One sample as input of the subject, with its description teacher-forced.

    input_ids: int64 [tokens]. roles: int8 [tokens], index into ROLES.
    inputs: the model's other inputs, one row per image, tile, patch or (see PER_TOKEN) sample.
    pieces: the description split at its token boundaries; joined, they give the description.
    regions: the regions of the visual tokens, in token order.
    """

    input_ids: torch.Tensor
    roles: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    pieces: tuple[str, ...]
    regions: tuple[Region, ...]

    @property
    def n_visual(self) -> int:
        """Number of visual tokens."""
        return int((self.roles == VISUAL).sum())

    @property
    def n_text(self) -> int:
        """Number of text tokens."""
        return int((self.roles == TEXT).sum())


@dataclass(frozen=True)
class Processed:
    """A processed sample. ends: int64 [tokens], end of each token in the prompt, in characters.
    start: where the text begins in the prompt."""

    sample: ProcessedSample
    ends: torch.Tensor
    start: int


def encode(subject: Subject, images: Sequence[Image.Image], text: str) -> EncodedSample:
    """Encode the images, the question, and `text` as the subject's own answer.

    The description's tokens are the last ones, so they are located by counting characters from the
    end. This holds however the processor expands the images in front of them. Raises SubjectError,
    and any error of the processor.
    """
    processed = process(subject, images, text)
    sample, ends, start = processed.sample, processed.ends, processed.start
    grids = subject.layout.grids(sample)
    input_ids = sample.input_ids
    is_text = ends > start
    _check_ids(subject, input_ids, is_text)
    roles = torch.full_like(input_ids, TEMPLATE, dtype=torch.int8)
    roles[is_text] = TEXT
    roles[_visual(subject, input_ids, visual_mask(grids))] = VISUAL
    inputs = sample.inputs
    if subject.family in _PREFIX:
        # As in generation, where the text attends to the left.
        inputs = {**inputs, "token_type_ids": is_text.long()[None]}
    return EncodedSample(
        input_ids=input_ids,
        roles=roles,
        inputs=inputs,
        pieces=_pieces(text, ends[is_text].tolist(), start),
        regions=tuple(grid.region for grid in grids),
    )


def process(subject: Subject, images: Sequence[Image.Image], text: str) -> Processed:
    """Return a sample as the processor prepares it, with the end of each token in the prompt.

    Raises SubjectError, and any error of the processor.
    """
    prompt = _conversation(subject, text, len(images))
    special = adds_special_tokens(subject, prompt)
    inputs = model_inputs(
        subject,
        [list(images)] if images else None,
        [prompt],
        add_special_tokens=special,
        return_offsets_mapping=True,
    )
    input_ids = inputs.pop("input_ids")[0]
    offsets = inputs.pop("offset_mapping", None)
    if offsets is None:
        ends = _ends_of_text(subject, prompt, text, input_ids, special)
    else:
        ends = torch.as_tensor(offsets)[0, :, 1]
    # Not needed: batches are padded on the right (see tasks/subject/batch.py).
    inputs.pop("attention_mask", None)
    sample = ProcessedSample(
        config=subject.model.config,
        processor=subject.processor,
        sizes=[image.size for image in images],
        input_ids=input_ids,
        placeholder=subject.image_token_id,
        inputs=inputs,
    )
    return Processed(sample, ends, int(ends.max()) - len(text))


def model_inputs(
    subject: Subject,
    images: Sequence[Sequence[Image.Image]] | None,
    prompts: Sequence[str],
    **arguments: Any,
) -> dict[str, Any]:
    """Return the processor's output for prompts with their images, with all that the model needs.

    arguments: of the processor. Raises any error of the processor.
    """
    made = dict(_prepared(subject.processor, images, list(prompts), arguments))
    # Some processors return the modality of each token on request only.
    if _MODALITIES not in made and _MODALITIES in subject.arguments:
        made[_MODALITIES] = (made["input_ids"] == subject.image_token_id).long()
    return {name: part for name, part in made.items() if name not in _NOT_FOR_MODELS}


def _prepared(
    processor: Any,
    images: Sequence[Sequence[Image.Image]] | None,
    prompts: list[str],
    arguments: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return a processor's output. One that refuses lists of images, such as GOT-OCR2's, takes the
    images of all prompts as one list. Raises the error of the first attempt."""
    try:
        return processor(images=images, text=prompts, return_tensors="pt", **arguments)
    except ValueError as error:
        if images is None:
            raise
        flat = [image for group in images for image in group]
        try:
            return processor(images=flat, text=prompts, return_tensors="pt", **arguments)
        except Exception:
            raise error from None


def _ends_of_text(
    subject: Subject, prompt: str, text: str, input_ids: torch.Tensor, special: bool
) -> torch.Tensor:
    """Return the ends of tokens for a processor that returns no offsets: those of the tokenizer,
    from the first token of the text on, and 0 before. Raises SubjectError."""
    plain = subject.processor.tokenizer(
        prompt, add_special_tokens=special, return_offsets_mapping=True
    )
    ends = [end for _, end in plain["offset_mapping"]]
    start = max(ends) - len(text)
    first = next((place for place, end in enumerate(ends) if end > start), len(ends))
    n_before = len(input_ids) - (len(ends) - first)
    if input_ids[max(0, n_before) :].tolist() != plain["input_ids"][first:]:
        raise SubjectError(
            "the processor does not say which tokens are the text's, and its tokens differ from "
            "the tokenizer's"
        )
    return torch.tensor([0] * n_before + ends[first:])


def question_prompt(subject: Subject, n_images: int = 1) -> str:
    """Return the prompt with `n_images` images, up to the start of the subject's answer."""
    return str(
        subject.processor.apply_chat_template(
            [_user_turn(subject, n_images)], add_generation_prompt=True, tokenize=False
        )
    )


def adds_special_tokens(subject: Subject, prompt: str) -> bool:
    """Return whether the tokenizer should add special tokens: no if the prompt starts with BOS."""
    bos = subject.processor.tokenizer.bos_token
    return not (bos and prompt.startswith(bos))


def _conversation(subject: Subject, text: str, n_images: int) -> str:
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    turns = [_user_turn(subject, n_images), answer]
    rendered = str(subject.processor.apply_chat_template(turns, tokenize=False))
    question = question_prompt(subject, n_images)
    if rendered.startswith(question):
        # Search from the left: the text may occur again after the answer, like "s" in "</s>".
        start = rendered.find(text, len(question))
    else:
        start = rendered.rfind(text)
    if start < 0:
        raise SubjectError(
            "the chat template changes the description, so it cannot be teacher-forced"
        )
    prompt = rendered[: start + len(text)]
    count = prompt.count(subject.image_token)
    if count != n_images:
        remedy = (
            f"remove {subject.image_token!r} from subject.question"
            if count > n_images
            else "the chat template leaves out images, or the tokenizer is of another model: name "
            "another template file in subject.chat_template"
        )
        raise SubjectError(
            f"the prompt has {count} {subject.image_token!r} for {n_images} image(s); {remedy}"
        )
    return prompt


def _check_ids(subject: Subject, input_ids: torch.Tensor, is_text: torch.Tensor) -> None:
    """Raise SubjectError if the text has a control token, or if the subject has no embedding for a
    token."""
    for one in sorted(set(input_ids[is_text].tolist()) & subject.control_ids):
        token = subject.processor.tokenizer.convert_ids_to_tokens(one)
        raise SubjectError(f"the tokenizer reads a part of the text as the control token {token!r}")
    ids = input_ids[input_ids != subject.image_token_id]
    if len(ids) and int(ids.max()) >= subject.vocabulary:
        raise SubjectError(
            f"a token has the id {int(ids.max())}, and the subject has embeddings for "
            f"{subject.vocabulary} tokens"
        )


def _visual(subject: Subject, input_ids: torch.Tensor, is_visual: torch.Tensor) -> torch.Tensor:
    """Return the positions of the visual tokens; is_visual: bool, one per placeholder."""
    positions = torch.nonzero(input_ids == subject.image_token_id)[:, 0]
    if len(positions) != len(is_visual):
        raise TokenCountError(
            f"the processor makes {len(positions)} image tokens, but the grids of "
            f"{subject.family} have {len(is_visual)}; the configurations of processor and model "
            "do not match"
        )
    return positions[is_visual]


def _user_turn(subject: Subject, n_images: int) -> dict:
    question = {"type": "text", "text": subject.settings.question}
    return {"role": "user", "content": [*[{"type": "image"}] * n_images, question]}


def _pieces(text: str, ends: Sequence[int], start: int) -> tuple[str, ...]:
    """Split `text` after the last character of each token. A token that only continues an earlier
    token's character gets an empty piece."""
    pieces = []
    position = 0
    for end in ends:
        stop = max(position, end - start)
        pieces.append(text[position:stop])
        position = stop
    return tuple(pieces)
