from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.regions import Region, count_tokens
from neuron_atlas.tasks.subject.encode import (
    TEMPLATE,
    TEXT,
    VISUAL,
    EncodedSample,
    encode,
    question_prompt,
)
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import SubjectError

QUESTION = "Could you describe the image?"
PICTURE = Image.new("RGB", (50, 70), (200, 30, 30))
TEXTS = [
    "There is a small red circle at the top left.",
    "Ein Zebra, 3 µm groß: 漢字 🦓 — naïve café",
    "first line\nsecond line\n\n\tindented",
    "🦓",
    "x",
    "s",
    "ASSISTANT: image",
    "describe the image?",
    QUESTION,
    "USER: " + QUESTION + " ASSISTANT:",
    "the image the image",
]


def decoded(subject: Subject, encoded: EncodedSample, role: int) -> str:
    ids = encoded.input_ids[encoded.roles == role]
    return subject.processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_roles_are_indices_into_the_names_of_roles():
    assert (ROLES[VISUAL], ROLES[TEXT], ROLES[TEMPLATE]) == ("visual", "text", "template")


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_of_a_text_join_to_the_text_one_a_token(subject, text):
    encoded = encode(subject, [PICTURE], text)
    assert "".join(encoded.pieces) == text
    assert len(encoded.pieces) == encoded.n_text > 0
    assert encoded.pieces[0]


class WithoutOffsets:
    """A processor that does not say where its tokens end."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, **arguments: Any) -> dict[str, Any]:
        made = dict(self._processor(**arguments))
        del made["offset_mapping"]
        return made


@pytest.mark.parametrize("text", TEXTS)
def test_a_processor_without_offsets_has_the_same_text(subject, text):
    expected = encode(subject, [PICTURE], text)
    found = encode(replace(subject, processor=WithoutOffsets(subject.processor)), [PICTURE], text)
    assert found.pieces == expected.pieces
    assert torch.equal(found.roles, expected.roles)


def test_a_text_that_the_processor_tokenizes_in_its_own_way_is_refused(subject, monkeypatch):
    def other(self: Any, **arguments: Any) -> dict[str, Any]:
        made = dict(subject.processor(**arguments))
        del made["offset_mapping"]
        made["input_ids"][0, -3] += 1
        return made

    monkeypatch.setattr(WithoutOffsets, "__call__", other)
    changed = replace(subject, processor=WithoutOffsets(subject.processor))
    with pytest.raises(SubjectError, match="differ from the tokenizer's"):
        encode(changed, [PICTURE], TEXTS[0])


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_marked_as_text_are_the_answer_and_end_the_sequence(subject, text):
    encoded = encode(subject, [PICTURE], text)
    first = len(encoded.roles) - encoded.n_text
    assert (encoded.roles[first:] == TEXT).all()
    assert not (encoded.roles[:first] == TEXT).any()
    assert decoded(subject, encoded, TEXT).strip() == text.strip()


@pytest.mark.parametrize("text", TEXTS)
def test_the_question_and_its_trimmings_are_template_and_never_text(subject, text):
    encoded = encode(subject, [PICTURE], text)
    assert decoded(subject, encoded, TEMPLATE).rstrip() == f"<s>USER: \n{QUESTION} ASSISTANT:"


def test_roles_tile_the_sequence_visual_tokens_in_one_block(subject):
    encoded = encode(subject, [PICTURE], TEXTS[0])
    roles = encoded.roles.tolist()
    assert len(roles) == len(encoded.input_ids)
    assert set(roles) == {VISUAL, TEXT, TEMPLATE}
    visual = np.flatnonzero(np.array(roles) == VISUAL)
    assert visual.tolist() == list(range(visual[0], visual[0] + encoded.n_visual))
    assert encoded.n_visual == count_tokens(encoded.regions) == 64
    assert (encoded.input_ids[visual] == subject.image_token_id).all()


def test_a_character_of_several_tokens_belongs_to_the_first_of_them(subject):
    pieces = encode(subject, [PICTURE], "a 🦓 b").pieces
    place = next(place for place, piece in enumerate(pieces) if "🦓" in piece)
    assert pieces[place + 1 : place + 4] == ("", "", "")
    assert pieces.count("") == 3


def test_the_text_is_teacher_forced_right_after_the_prompt_that_asks_for_it(subject):
    text = TEXTS[0]
    encoded = encode(subject, [PICTURE], text)
    prompt = subject.processor(
        images=[PICTURE], text=[question_prompt(subject)], return_tensors="pt"
    )["input_ids"][0]
    assert encoded.input_ids[: len(prompt)].tolist() == prompt.tolist()
    assert encoded.n_text == len(encoded.input_ids) - len(prompt)


def test_the_question_is_the_one_of_the_settings(subject):
    asking = replace(subject, settings=replace(subject.settings, question="What is the image?"))
    encoded = encode(asking, [PICTURE], "the image")
    assert "What is the image?" in decoded(asking, encoded, TEMPLATE)
    assert "".join(encoded.pieces) == "the image"


def test_the_pixels_and_the_region_are_those_of_the_processor(subject):
    encoded = encode(subject, [PICTURE], "x")
    pixels = encoded.inputs["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.dtype == torch.float32
    assert pixels[0, 0].mean() > pixels[0, 1].mean()
    assert encoded.regions == (Region(0, 8, 8, 0, 0, 50, 70),)


def test_a_template_that_alters_the_text_is_refused(subject, monkeypatch):
    shouting = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] | upper }}"
        "{% endfor %}{% endfor %}"
    )
    monkeypatch.setattr(subject.processor, "chat_template", shouting)
    with pytest.raises(SubjectError, match="cannot be teacher-forced"):
        encode(subject, [PICTURE], "quiet")


def test_a_processor_that_gives_other_visual_tokens_than_patches_is_refused(subject, monkeypatch):
    monkeypatch.setattr(subject.processor, "num_additional_image_tokens", 3)
    with pytest.raises(SubjectError, match="makes 66 image tokens, but the grids of llava have 64"):
        encode(subject, [PICTURE], "x")


def test_a_second_image_in_the_prompt_is_refused_by_a_message_that_says_where_it_comes_from(
    subject,
):
    asking = replace(subject, settings=replace(subject.settings, question="<image> What is it?"))
    with pytest.raises(SubjectError, match=r"has 2 '<image>' for .*subject.question"):
        encode(asking, [PICTURE], "x")
