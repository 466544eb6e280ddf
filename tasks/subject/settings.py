"""Settings of the subject and of the `describe` stage, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.models.pretrained import ModelError, saved_folder
from neuron_atlas.tasks.settings import AtLeastOne, Share, not_hashed

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
HookPoint = str
"""`gate`, `gate_up`, `sae`, `vision`, `projector` or `module:PATH`; see CaptureSettings."""
MODULE_PREFIX = "module:"
VISION, PROJECTOR = "vision", "projector"
TOWERS = (VISION, PROJECTOR)
"""Hook points outside of the language model, whose activations are at visual tokens only."""
Geometry = Literal["known", "probe", "none"]
TextSource = Literal["generated", "given"]


@dataclass(frozen=True)
class SubjectSettings:
    """The model under study, and the question it answers about every image.

    model: a folder, or a Hugging Face model id. revision: a commit or tag of a Hugging Face model.
    dtype: number format of weights and activations; `auto` for that of the saved weights.
    question: the user's turn in every prompt.
    chat_template: file with a Jinja chat template; None for the model's own. Its text, and not its
    path, decides the result. geometry: how to find where each visual token looks. `known`: by the
    function of the model's family, or by `probe` for a family without one; `probe`: by changing
    parts of an image; `none`: not at all, and every visual token counts as one of the whole image.
    adapter: a folder, or a Hugging Face id, of a LoRA adapter to add to the weights, or None. Its
    content, and not its path, decides the result. prompt: plain text with {image} and {question}
    in place of a chat template, for a base model; None for a chat template.
    """

    model: str = not_hashed("")
    revision: str | None = not_hashed(None)
    dtype: Dtype = "float32"
    question: str = "Could you describe the image?"
    chat_template: str | None = not_hashed(None)
    # Not hashed: Context.subject_identity adds them where they are not the default.
    geometry: Geometry = not_hashed("known")
    adapter: str | None = not_hashed(None)
    prompt: str | None = not_hashed(None)


@dataclass(frozen=True)
class DescribeSettings:
    """Source of the texts.

    text_source: `generated` by the subject (greedily), or `given` by the dataset. max_new_tokens:
    maximum length of a generated answer. batch_size: samples per batch. max_failed_share: the run
    fails if a larger share of samples has no text.
    """

    text_source: TextSource = "generated"
    max_new_tokens: AtLeastOne = 512
    batch_size: AtLeastOne = not_hashed(16)
    max_failed_share: Share = not_hashed(0.05)


class SubjectError(ModelError):
    """The subject cannot be loaded or hooked; the message gives the setting and the remedy."""


class TokenCountError(SubjectError):
    """The processor makes another number of visual tokens than the model."""


def model_folder(settings: SubjectSettings) -> Path | None:
    """Return the folder that settings.model names, or None if it is a Hugging Face id.

    Raises SubjectError if settings.model is a path and there is no such folder.
    """
    try:
        return saved_folder(settings.model, "subject.model")
    except ModelError as error:
        raise SubjectError(str(error)) from error


def source_of(settings: SubjectSettings) -> dict[str, str | None]:
    """Return where a subject's files are, for another program on this machine: `model`, an absolute
    folder or a Hugging Face id; `chat_template`, an absolute path or None; and `adapter`, like
    `model`, if there is one. Raises SubjectError."""
    folder, template = model_folder(settings), settings.chat_template
    source = {
        "model": settings.model if folder is None else str(folder.resolve()),
        "chat_template": None if template is None else str(Path(template).expanduser().resolve()),
    }
    if settings.adapter is None:
        return source
    adapter = Path(settings.adapter).expanduser()
    return source | {"adapter": str(adapter.resolve()) if adapter.is_dir() else settings.adapter}
