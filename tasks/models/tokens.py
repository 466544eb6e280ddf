"""Upper bound on the tokens of a request, computed before it is sent.

Images count by the rule that OpenAI publishes for the model's family. Text is counted by tiktoken,
which downloads a model's encoding once. Without an encoding, every byte of UTF-8 counts as one
token; no byte-level encoding exceeds that. The reservation is then up to about four times too
large until the answer arrives.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from neuron_atlas.tasks.models.settings import ClientSettings

if TYPE_CHECKING:
    import tiktoken

_log = logging.getLogger(__name__)

_PER_MESSAGE = 8
"""Upper bound on a chat format's tokens per message. OpenAI: 3, and 3 before the answer."""
_LONGEST_ANSWERS = {
    "gpt-4o": 16_384,
    "chatgpt-4o": 16_384,
    "gpt-4.5": 16_384,
    "gpt-4.1": 32_768,
    "o1": 100_000,
    "o3": 100_000,
    "o4": 100_000,
    "gpt-5": 128_000,
}
"""Most tokens of an answer if the request sets no limit, by prefix of the model's name. Source:
OpenAI's model pages."""
_REASONING_TOKENS = 4000
"""Reasoning about a few samples takes some hundred to some thousand tokens."""
_PLAIN_MODEL = re.compile(
    r"(?:^|/)(?:gpt-(?:3|4)|chatgpt)|instruct|llava|pixtral|gemma-[123]|idefics|molmo|phi-3|llama-[23]"
)
"""Names of models that write no reasoning."""
_LONGEST_OF_ALL = 131_072
"""Used for other models."""
_SQUARE_PX, _SHORT_PX, _TILE_PX = 2048, 768, 512
_PATCH_PX, _MOST_PATCHES = 32, 1536

_TILES = {
    "gpt-4o-mini": (2833, 5667),
    "gpt-4o": (85, 170),
    "gpt-4.1": (85, 170),
    "chatgpt-4o": (85, 170),
    "gpt-4.5": (85, 170),
    "gpt-5": (70, 140),
    "o1": (75, 150),
    "o3": (75, 150),
}
"""Tokens of an image, and of each of its 512 px tiles, by prefix of the model's name."""
_PATCHES = {
    "gpt-4.1-mini": 1.62,
    "gpt-4.1-nano": 2.46,
    "gpt-5-mini": 1.62,
    "gpt-5-nano": 2.46,
    "o4-mini": 1.72,
}
"""Tokens of each 32 px patch of an image, by prefix of the model's name."""


@dataclass(frozen=True)
class TokenBound:
    """Upper bounds on the tokens of a prompt and of its answer."""

    tokens_in: int
    tokens_out: int

    @property
    def total(self) -> int:
        """Tokens that count against a token limit."""
        return self.tokens_in + self.tokens_out


def token_bound(body: Mapping[str, Any], settings: ClientSettings) -> TokenBound:
    """Return an upper bound on the tokens of a request's body and its answer."""
    count = 0
    for message in body["messages"]:
        content = message["content"]
        parts: list[Any] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        count += _PER_MESSAGE
        for part in parts:
            if part["type"] == "image_url":
                count += image_tokens(
                    settings.model, part["image_url"], otherwise=settings.image_tokens
                )
            else:
                count += text_tokens(settings.model, part["text"])
    if "response_format" in body:  # The schema is part of the prompt.
        count += text_tokens(settings.model, json.dumps(body["response_format"]))
    answer = body.get("max_completion_tokens") or body.get("max_tokens")
    if not answer:
        answer = _of_family(settings.model, _LONGEST_ANSWERS) or _LONGEST_OF_ALL
    return TokenBound(count, int(answer))


def answer_limit(model: str, tokens: int) -> int:
    """Return the limit on the tokens of an answer of at most `tokens`: more for a model that may
    reason first, since reasoning counts against the limit."""
    return tokens + (_REASONING_TOKENS if may_reason(model) else 0)


def may_reason(model: str) -> bool:
    """Return whether a model may reason before it answers: any that is not known not to."""
    return _PLAIN_MODEL.search(model.lower()) is None


def text_tokens(model: str, text: str) -> int:
    """Count the tokens of a text; without an encoding, return an upper bound."""
    encoding = _encoding(model)
    if encoding is None:
        return len(text.encode("utf-8", "replace"))
    return len(encoding.encode(text, disallowed_special=()))


def image_tokens(model: str, image: Mapping[str, Any], otherwise: int) -> int:
    """Return the tokens of an image (`image_url` of the protocol, a data URL).

    Source: OpenAI's guide to images and vision. Detail `auto` counts as `high`. otherwise: returned
    for a model whose rule is unknown.
    """
    patch_factor = _of_family(model, _PATCHES)
    if patch_factor is not None:
        return math.ceil(_patches(*_size(image["url"])) * patch_factor)
    tiles = _of_family(model, _TILES)
    if tiles is None:
        return otherwise
    base, each = tiles
    if image.get("detail", "auto") == "low":
        return base
    return base + each * _tiles(*_size(image["url"]))


def _tiles(width: int, height: int) -> int:
    """Count an image's 512 px tiles, once scaled to at most 2,048 px and a short side of 768."""
    scale = min(1.0, _SQUARE_PX / max(width, height))
    scale = min(scale, _SHORT_PX / min(width, height))
    # Rounding first removes floating-point noise, which ceil would count as a tile.
    across, down = (math.ceil(round(side * scale, 6) / _TILE_PX) for side in (width, height))
    return across * down


def _patches(width: int, height: int) -> int:
    return min(math.ceil(width / _PATCH_PX) * math.ceil(height / _PATCH_PX), _MOST_PATCHES)


def _of_family(model: str, table: Mapping[str, Any]) -> Any:
    for name in sorted(table, key=len, reverse=True):
        if model.startswith(name):
            return table[name]
    return None


def _size(url: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(";base64,")[2]))) as picture:
        return picture.size


def load_encoding(model: str, wait_s: float) -> bool:
    """Start loading the encoding of `model`, unless started before, and wait up to wait_s seconds.

    Returns whether it is loaded. The download can hang without a network.
    """
    loading = _loading.setdefault(model, _Loading(model))
    loading.begin()
    loading.ended.wait(wait_s)
    return loading.encoding is not None


class _Loading:
    """An encoding that is loaded in a separate thread."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._thread = threading.Thread(target=self._load, name="tiktoken", daemon=True)
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self.encoding: tiktoken.Encoding | None = None

    def begin(self) -> None:
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def _load(self) -> None:
        import tiktoken

        try:
            self.encoding = tiktoken.encoding_for_model(self._model)
        except KeyError:
            self._warn(f"tiktoken knows no encoding for {self._model!r}")
        except Exception as error:  # The type depends on tiktoken's HTTP library.
            kind = type(error).__name__
            self._warn(f"tiktoken could not load the encoding of {self._model!r} ({kind})")
        self.ended.set()

    def _warn(self, why: str) -> None:
        _log.warning("%s: until it is answered, a request counts one token a byte of text", why)


_loading: dict[str, _Loading] = {}


def _encoding(model: str) -> tiktoken.Encoding | None:
    loading = _loading.get(model)
    return None if loading is None else loading.encoding
