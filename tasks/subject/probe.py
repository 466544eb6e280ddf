"""Try a loaded subject on a small drawn image, so that a wrong folder fails before the first sample
and a sample that fails later is to blame itself."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.models.pretrained import first_lines
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import (
    TEXT,
    VISUAL,
    EncodedSample,
    encode,
    model_inputs,
    question_prompt,
)
from neuron_atlas.tasks.subject.folder import no_chat_template
from neuron_atlas.tasks.subject.hook_points import neurons_per_layer, observing
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError, TokenCountError
from neuron_atlas.tasks.subject.subject import Subject

_TEXT = "A cat."
_SIDES = (96, 64)
_PARTS = ("self", "image_processor", "tokenizer", "video_processor", "chat_template", "kwargs")
"""Arguments of a processor that are no fields of processor_config.json."""


def check_sequence(subject: Subject) -> None:
    """Raise SubjectError unless the subject has decoder layers and a placeholder of images."""
    _ = (subject.decoder, subject.image_token_id)


def check_processor(subject: Subject) -> None:
    """Raise SubjectError, with file and field, if the subject cannot encode an image and a text."""
    model = subject.settings.model
    if not subject.processor.chat_template:
        raise SubjectError(no_chat_template(model))
    _check_vocabulary(subject)
    try:
        question_prompt(subject)
    except Exception as error:
        raise SubjectError(
            f"subject.model: the chat template of {model!r} cannot write a prompt "
            f"({first_lines(error)}); name another template file in subject.chat_template"
        ) from error
    try:
        encode(subject, [_image()], _TEXT)
    except TokenCountError as error:
        raise SubjectError(f"subject.model: {error}: {_processor_fields(subject)}") from error
    except SubjectError:
        raise
    except Exception as error:
        raise SubjectError(
            f"subject.model: the processor of {model!r} cannot prepare an image "
            f"({first_lines(error)}): {_processor_fields(subject)}"
        ) from error


def can_share_batch(subject: Subject) -> bool:
    """Return whether samples with images of different sizes can share a batch without an effect on
    their activations.

    Raises SubjectError if the model cannot process a small image, or if padding after a sample
    changes its activations: its tokens attend to later ones.
    """
    # The third one is cut into another number of tiles, in types that have tiles.
    shown = (_image(), _image().rotate(90, expand=True), _image().resize((256, 64)))
    samples = [encode(subject, [image], _TEXT) for image in shown]
    longest = max(len(sample.input_ids) for sample in samples)
    try:
        alone = [_last_hidden(subject, [sample], len(sample.input_ids))[0] for sample in samples]
    except Exception as error:
        raise _no_pass(subject, error) from error
    padded = [_last_hidden(subject, [sample], longest + 8)[0] for sample in samples]
    if not all(map(_are_close, padded, alone)):
        raise SubjectError(
            f"subject.model: {subject.settings.model!r} is a {subject.family!r} model whose tokens "
            "attend to later ones, so its activations depend on padding; it cannot be a subject"
        )
    try:
        together = _last_hidden(subject, samples, longest + 8)
    except (RuntimeError, ValueError):  # Their inputs cannot be joined along the first dimension.
        return False
    return all(map(_are_close, together, alone))


def _are_close(padded: torch.Tensor, alone: torch.Tensor) -> bool:
    within = 1e-2 * float(alone.abs().max())
    return torch.allclose(padded[: len(alone)], alone, rtol=1e-2, atol=within)


def _last_hidden(subject: Subject, samples: Sequence[EncodedSample], length: int) -> torch.Tensor:
    """Return the output of the last decoder layer: float32 [samples, length, width]."""
    read: list[torch.Tensor] = []

    def keep(_module: object, _args: object, output: Any) -> None:
        read.append(output[0] if isinstance(output, tuple) else output)

    handle = subject.decoder.layers[-1].register_forward_hook(keep)
    try:
        with torch.inference_mode():
            forward_body(subject, batch_inputs(samples, length))
    finally:
        handle.remove()
    # Gemma 3n has several streams; the first one is the embedding.
    return (read[0][0] if read[0].dim() > 3 else read[0]).float()


def nonfinite_shares(
    subject: Subject, layers: Sequence[int], hook_point: HookPoint
) -> dict[int, float]:
    """Run the subject on a small image; return the share of visual and text activations of each
    layer that are infinite or NaN.

    Raises SubjectError, also if a module's output is not one vector per token.
    """
    shares: dict[int, float] = {}
    encoded = encode(subject, [_image()], _TEXT)
    is_evidence = (encoded.roles == VISUAL) | (encoded.roles == TEXT)

    def observe(layer: int, activations: torch.Tensor) -> None:
        neurons = neurons_per_layer(subject, hook_point, [layer])
        shape = tuple(activations.shape)
        if shape != (1, len(is_evidence), neurons):
            raise SubjectError(
                f"capture.hook_point: {hook_point} of layer {layer} gives the shape {shape}, not "
                f"one vector of {neurons} values for each of {len(is_evidence)} tokens; name "
                "another module"
            )
        values = activations[0, is_evidence.to(activations.device)]
        shares[layer] = float((~values.isfinite()).float().mean())

    try:
        with observing(subject, layers, hook_point, observe), torch.inference_mode():
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    except SubjectError:
        raise
    except Exception as error:
        raise _no_pass(subject, error) from error
    return shares


def _no_pass(subject: Subject, error: Exception) -> SubjectError:
    return SubjectError(
        f"subject.model: {subject.settings.model!r} cannot process a small image "
        f"({first_lines(error)}): its config.json, its weights and its processor do not match; "
        f"{_processor_fields(subject)}"
    )


def _image() -> Image.Image:
    """Return an image that is not square, and whose patches differ."""
    width, height = _SIDES
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def _check_vocabulary(subject: Subject) -> None:
    """Raise SubjectError if words of the tokenizer have no embedding. Added tokens may have none:
    only the ones that a sample uses matter."""
    tokenizer = subject.processor.tokenizer
    added = tokenizer.get_added_vocab()
    highest = max(
        (one for word, one in tokenizer.get_vocab().items() if word not in added), default=0
    )
    if highest >= subject.vocabulary:
        raise SubjectError(
            f"subject.model: tokenizer.json of {subject.settings.model!r} has ids up to {highest}, "
            f"and the model has embeddings for {subject.vocabulary} tokens "
            "(text_config.vocab_size in config.json); name a folder whose files are of one model"
        )


def _processor_fields(subject: Subject) -> str:
    """Return how the placeholder of images differs; else which fields of the processor's file are
    missing, or else which ones to correct."""
    if placeholder := _other_placeholder(subject):
        return placeholder
    file = _file(subject)
    names = list(_field_names(subject.processor))
    stored = _stored_fields(subject, file)
    absent = [name for name in names if stored is not None and name not in stored]
    unset = [name for name in names if getattr(subject.processor, name, None) is None]
    if absent or unset:
        lacking = ", ".join(dict.fromkeys([*unset, *absent]))
        return f"{file} lacks {lacking}; save or download the model again, or add it to the file"
    values = ", ".join(f"{name} {getattr(subject.processor, name)}" for name in names)
    return f"correct {file} ({values or 'its image processor'}) or download the model again"


def _other_placeholder(subject: Subject) -> str:
    """Return a message if the processor writes another token for image features than the model
    replaces, or "" if it does not."""
    try:
        made = model_inputs(subject, [[_image()]], [question_prompt(subject)])
    except Exception:  # Of the processor; the caller's error names the reason.
        return ""
    tokenizer = subject.processor.tokenizer
    counts = Counter(made["input_ids"][0].tolist())
    added = {one: counts[one] for one in tokenizer.added_tokens_decoder}
    most = max(added, key=lambda one: added[one], default=subject.image_token_id)
    if added.get(most, 0) <= counts[subject.image_token_id]:
        return ""
    return (
        f"the placeholder of image features has the id {subject.image_token_id} in config.json, "
        f"and the processor writes {tokenizer.convert_ids_to_tokens(most)!r} with the id {most}; "
        "name a folder whose files are of one model"
    )


def _field_names(processor: Any) -> Iterator[str]:
    """Yield the processor's own settings that decide the number of image tokens."""
    for name in inspect.signature(type(processor).__init__).parameters:
        if name not in _PARTS and not name.endswith("_token"):
            yield name


def _file(subject: Subject) -> str:
    folder = Path(subject.settings.model).expanduser()
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            return name
    return "processor_config.json"


def _stored_fields(subject: Subject, file: str) -> dict[str, Any] | None:
    """Return the fields in the processor's file; None if it is not in a local folder."""
    path = Path(subject.settings.model).expanduser() / file
    return json.loads(path.read_text("utf-8")) if path.exists() else None
