"""Turn a sample into the subject's input, and tell what every one of its tokens is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families import FAMILIES, PreparedSample, looking
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import SubjectError

VISUAL, TEXT, TEMPLATE = range(len(ROLES))
ROLE_INDEX = {role: index for index, role in enumerate(ROLES)}


@dataclass(frozen=True)
class Encoded:
    """One sample as the subject reads it, the description teacher-forced.

    input_ids: int64 [tokens]. roles: int8 [tokens], index into ROLES.
    inputs: all else that the model takes, with a row for each image or part of one.
    pieces: the description cut at its token boundaries; joined they give the description.
    regions: where the visual tokens look, in their order.
    """

    input_ids: torch.Tensor
    roles: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    pieces: tuple[str, ...]
    regions: tuple[Region, ...]

    @property
    def n_visual(self) -> int:
        """Visual tokens."""
        return int((self.roles == VISUAL).sum())

    @property
    def n_text(self) -> int:
        """Text tokens."""
        return int((self.roles == TEXT).sum())


def encode(subject: Subject, images: Sequence[Image.Image], text: str) -> Encoded:
    """Encode the images, the question and `text` as the subject's own answer.

    The description's tokens are the last ones of the sequence, so they are found by counting
    characters from its end: that holds however the processor expands the image before them.
    """
    prompt = _conversation(subject, text, len(images))
    inputs = dict(
        subject.processor(
            images=[list(images)] if images else None,
            text=[prompt],
            add_special_tokens=adds_special_tokens(subject, prompt),
            return_offsets_mapping=True,
            return_tensors="pt",
        )
    )
    input_ids = inputs.pop("input_ids")[0]
    ends = inputs.pop("offset_mapping")[0, :, 1]
    # What is padded is said by the lengths; the model needs no mask (see tasks/subject/batch.py).
    inputs.pop("attention_mask", None)
    grids = FAMILIES[subject.family](
        PreparedSample(
            config=subject.model.config,
            processor=subject.processor,
            sizes=[image.size for image in images],
            input_ids=input_ids,
            placeholder=subject.image_token_id,
            inputs=inputs,
        )
    )
    start = int(ends.max()) - len(text)
    is_text = ends > start
    roles = torch.full_like(input_ids, TEMPLATE, dtype=torch.int8)
    roles[is_text] = TEXT
    roles[_visual(subject, input_ids, looking(grids))] = VISUAL
    return Encoded(
        input_ids=input_ids,
        roles=roles,
        inputs=inputs,
        pieces=_pieces(text, ends[is_text].tolist(), start),
        regions=tuple(grid.region for grid in grids),
    )


def question_prompt(subject: Subject, n_images: int = 1) -> str:
    """The prompt about so many images, up to where the subject's own answer begins."""
    return str(
        subject.processor.apply_chat_template(
            [_user_turn(subject, n_images)], add_generation_prompt=True, tokenize=False
        )
    )


def adds_special_tokens(subject: Subject, prompt: str) -> bool:
    """Whether the tokenizer is to add its own: not where the chat template wrote the BOS."""
    bos = subject.processor.tokenizer.bos_token
    return not (bos and prompt.startswith(bos))


def _conversation(subject: Subject, text: str, n_images: int) -> str:
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    turns = [_user_turn(subject, n_images), answer]
    rendered = str(subject.processor.apply_chat_template(turns, tokenize=False))
    question = question_prompt(subject, n_images)
    if rendered.startswith(question):
        # From the left, because what follows an answer may hold it too: "s" is also in "</s>".
        start = rendered.find(text, len(question))
    else:
        start = rendered.rfind(text)
    if start < 0:
        raise SubjectError("the chat template alters the description; it cannot be teacher-forced")
    prompt = rendered[: start + len(text)]
    if prompt.count(subject.image_token) != n_images:
        raise SubjectError(
            f"the prompt holds {subject.image_token!r} {prompt.count(subject.image_token)} times, "
            f"and the sample has {n_images} image(s); remove it from subject.question"
        )
    return prompt


def _visual(subject: Subject, input_ids: torch.Tensor, looks: torch.Tensor) -> torch.Tensor:
    """Where the visual tokens stand; `looks` says of each placeholder whether it is one."""
    places = torch.nonzero(input_ids == subject.image_token_id)[:, 0]
    if len(places) != len(looks):
        raise SubjectError(
            f"the processor gives {len(places)} tokens to the images where the grids of "
            f"{subject.family} hold {len(looks)}; its configuration and the model's do not agree"
        )
    return places[looks]


def _user_turn(subject: Subject, n_images: int) -> dict:
    question = {"type": "text", "text": subject.settings.question}
    return {"role": "user", "content": [*[{"type": "image"}] * n_images, question]}


def _pieces(text: str, ends: Sequence[int], start: int) -> tuple[str, ...]:
    """Cut `text` after each token's last character; a token that ends inside a character that
    an earlier token began adds nothing."""
    pieces = []
    position = 0
    for end in ends:
        stop = max(position, end - start)
        pieces.append(text[position:stop])
        position = stop
    return tuple(pieces)
