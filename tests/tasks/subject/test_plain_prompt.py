"""Base models without a chat template read a plain prompt."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode, question_prompt
from neuron_atlas.tasks.subject.folder import check_subject_folder
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(BUILDS["llava"], tmp_path_factory.mktemp("models") / "llava")
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_plain_prompt_takes_the_place_of_a_chat_template(model):
    prompt = '"{image}"\\nQ: {question} {x}\\nA: '
    subject = load_subject(SubjectSettings(model=str(model), prompt=prompt, question="What?"))
    assert question_prompt(subject) == '"<image>"\nQ: What? {x}\nA: '
    assert question_prompt(subject, 2) == '"<image><image>"\nQ: What? {x}\nA: '
    assert question_prompt(subject, 0) == '""\nQ: What? {x}\nA: '
    sample = encode(subject, [Image.new("RGB", (48, 32))], "A cat.")
    assert "".join(sample.pieces) == "A cat."
    assert int((sample.roles == VISUAL).sum()) == sum(
        one.rows * one.columns for one in sample.regions
    )
    assert torch.all(sample.roles[-sample.n_text :] == TEXT)


def test_the_dtype_of_the_weights_is_kept_if_asked_for(model):
    prompt = "{image}{question}"
    subject = load_subject(SubjectSettings(model=str(model), prompt=prompt, dtype="auto"))
    assert subject.model.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "subject.prompt, such as"),
        ({"prompt": "{question}"}, "has no {image}, or several"),
        ({"prompt": "{image}", "chat_template": "x"}, "are both set"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_one_line(model, settings, named):
    with pytest.raises(SubjectError) as caught:
        check_subject_folder(SubjectSettings(model=str(model), **settings))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
