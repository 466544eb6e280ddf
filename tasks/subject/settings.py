"""The settings of a subject and of what it is asked, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.models.pretrained import ModelError, saved_folder
from neuron_atlas.tasks.settings import AtLeastOne, Share, not_hashed

Dtype = Literal["float32", "bfloat16", "float16"]
HookPoint = Literal["gate", "gate_up"]
TextSource = Literal["generated", "given"]


@dataclass(frozen=True)
class SubjectSettings:
    """Which model is studied, and the question that it is asked about every image.

    model: a folder, or a Hugging Face model id; revision: a commit or tag of the latter.
    dtype: the number format of weights and activations.
    """

    model: str = not_hashed("")
    revision: str | None = not_hashed(None)
    dtype: Dtype = "float32"
    question: str = "Could you describe the image?"


@dataclass(frozen=True)
class DescribeSettings:
    """Where the texts come from: `generated` by the subject (greedily), or `given` by the data.

    max_new_tokens: where a generated answer is cut. batch_size: images generated for at once.
    max_failed_share: of samples that may stay without a text before the run fails.
    """

    text: TextSource = "generated"
    max_new_tokens: AtLeastOne = 512
    batch_size: AtLeastOne = not_hashed(16)
    max_failed_share: Share = not_hashed(0.05)


class SubjectError(ModelError):
    """The subject cannot be loaded or hooked; the message says which and what to do."""


def model_folder(settings: SubjectSettings) -> Path | None:
    """The folder that settings.model names, or None if it is a Hugging Face id.

    Raises SubjectError where it can only be meant as a folder and there is none.
    """
    try:
        return saved_folder(settings.model, "subject.model")
    except ModelError as error:
        raise SubjectError(str(error)) from error
