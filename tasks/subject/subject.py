"""A loaded vision-language model, and what its tokens mean."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from neuron_atlas.tasks.subject.layout import Layout
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings

_PLACEHOLDERS = ("image_token_id", "image_token_index", "img_context_token_id")
"""Fields of configurations and processors that hold the placeholder's id."""

_NESTED = ("decoder", "model", "language_model", "text_model")
"""Where a language model may hold the module with its decoder layers."""


@dataclass(frozen=True)
class Subject:
    """Loaded model in evaluation mode, with its processor.

    device: the device of its input embeddings, and so of its inputs. layout: where its visual
    tokens look. shares_batches: samples can share a batch; otherwise each one runs alone. saes: its
    SAEs (tasks.subject.sae) by decoder layer, for hook_point=sae.
    """

    settings: SubjectSettings
    model: Any
    processor: Any
    device: torch.device
    layout: Layout = field(default_factory=Layout)
    shares_batches: bool = True
    saes: Mapping[int, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The model_type of its configuration: the key of its function in `FAMILIES`, if any."""
        return str(self.model.config.model_type)

    @cached_property
    def body(self) -> Any:
        """The part of the model below its language-model head that takes images; the whole model if
        only that takes them."""
        inner = getattr(self.model, "model", None)
        takes = () if inner is None else inspect.signature(inner.forward).parameters
        return inner if any(name.startswith(("pixel", "image")) for name in takes) else self.model

    @cached_property
    def arguments(self) -> frozenset[str]:
        """Names of the arguments of its body."""
        return frozenset(inspect.signature(self.body.forward).parameters)

    @cached_property
    def decoder(self) -> Any:
        """The module whose `layers` are the language model's decoder layers. Raises
        SubjectError."""
        part = self.body.get_decoder()
        while part is not None:
            if isinstance(getattr(part, "layers", None), torch.nn.ModuleList):
                return part
            nested = (getattr(part, name, None) for name in _NESTED)
            part = next((one for one in nested if isinstance(one, torch.nn.Module)), None)
        raise SubjectError(
            f"subject.model: the language model of {self.settings.model!r} has no list of decoder "
            "layers at `layers`, as transformers' decoders do; its neurons cannot be read"
        )

    @cached_property
    def image_token_id(self) -> int:
        """Token id of the placeholder in input_ids that one image feature replaces. Raises
        SubjectError."""
        found = placeholder_id(self.model.config, self.processor)
        if found is None:
            raise SubjectError(
                f"subject.model: the configuration of {self.settings.model!r} names no placeholder "
                "of image features (image_token_id), so its visual tokens are not known"
            )
        return found

    @property
    def image_token(self) -> str:
        """Token that stands for a whole image in a prompt."""
        names = ("image_placeholder_token", "image_token")
        named = next((one for name in names if (one := getattr(self.processor, name, None))), None)
        if named is None:
            named = self.processor.tokenizer.convert_ids_to_tokens(self.image_token_id)
        return str(getattr(named, "content", named))

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """Strings that a text must not contain, longest first: they would be read as an image, a
        video, or another control token such as the end of the text."""
        tokenizer = self.processor.tokenizer
        placeholder = tokenizer.convert_ids_to_tokens(self.image_token_id)
        video = getattr(self.processor, "video_token", None)
        spelled = {self.image_token, placeholder, video, *map(str, tokenizer.all_special_tokens)}
        spelled |= {one.content for one in tokenizer.added_tokens_decoder.values() if one.special}
        return tuple(sorted(filter(_is_marker, spelled), key=lambda one: (-len(one), one)))

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Token ids of the markers, which are never evidence. The tokenizer also reads an unknown
        character as one of them, and that is text."""
        ids = map(self.processor.tokenizer.convert_tokens_to_ids, self.markers)
        unknown = self.processor.tokenizer.unk_token_id
        return frozenset(one for one in ids if one not in (None, unknown))

    def batch_size(self, wanted: int) -> int:
        """Return how many samples may run at a time, at most `wanted`."""
        return wanted if self.shares_batches else 1

    @property
    def vocabulary(self) -> int:
        """Number of tokens that have an embedding."""
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def context(self) -> int | None:
        """Maximum number of tokens that the model was made for; None if its configuration does not
        say."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None


def placeholder_id(config: Any, processor: Any = None) -> int | None:
    """Return the token id that image features replace in a sequence, or None if there is none."""
    for named in (config, processor, getattr(processor, "tokenizer", None)):
        for name in _PLACEHOLDERS:
            found = getattr(named, name, None)
            if isinstance(found, int):
                return found
    return None


def _is_marker(token: str | None) -> bool:
    """Return whether a special token looks like markup. One that is an ordinary word or character,
    such as "!" for padding, is left in texts."""
    return token is not None and len(token) > 2 and not token.isalnum()
