"""A loaded vision-language model, and what its tokens mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from neuron_atlas.tasks.subject.settings import SubjectSettings


@dataclass(frozen=True)
class Subject:
    """Loaded model in evaluation mode, with its processor.

    device: the device of its input embeddings, and so of its inputs.
    """

    settings: SubjectSettings
    model: Any
    processor: Any
    device: torch.device

    @property
    def family(self) -> str:
        """Key of the model's adapter in `FAMILIES`."""
        return str(self.model.config.model_type)

    @property
    def image_token_id(self) -> int:
        """Token id of the placeholder in input_ids that one image feature replaces."""
        return int(self.model.config.image_token_id)

    @property
    def image_token(self) -> str:
        """Token that stands for a whole image in a prompt."""
        return str(self.processor.image_token)

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


def _is_marker(token: str | None) -> bool:
    """Return whether a special token looks like markup. One that is an ordinary word or character,
    such as "!" for padding, is left in texts."""
    return token is not None and len(token) > 2 and not token.isalnum()
