"""Check that the weights of a loaded subject are those that its configuration describes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from neuron_atlas.tasks.models.pretrained import check_complete
from neuron_atlas.tasks.subject.settings import SubjectError

_MEANINGFUL = re.compile(r"lora_|base_layer|(?<!vision)\.layers\.\d+\.(mlp|self_attn)\.")
"""Weights that change the activations if the model leaves them out. Others, such as buffers of
older versions of transformers, do not."""
_VISION = re.compile(r"vision|visual")


def check_weights(name: str, model: Any, info: Mapping[str, Any]) -> None:
    """Raise SubjectError if weights are missing, of another shape, or not used by the model.

    transformers would initialize the former at random and leave out the latter, without an error.
    name: of the model, for messages. info: the loading info of `from_pretrained`.
    """
    _check_shapes(name, model, info["mismatched_keys"])
    missing = info["missing_keys"]
    named = model.config.architectures or []
    expected = type(model).__name__
    if missing and named and expected not in named:
        raise SubjectError(
            f"subject.model: config.json of {name!r} has architectures {', '.join(named)}, and its "
            f"weights are not those of {expected}: they lack {min(missing)!r}; name a model that "
            "was converted for transformers"
        )
    check_complete(name, "subject.model", missing)
    unused = [
        key
        for key in sorted(info["unexpected_keys"])
        if _MEANINGFUL.search(key) and not _VISION.search(key)
    ]
    if unused:
        remedy = (
            "merge the adapter into the weights (merge_and_unload in peft)"
            if "lora_" in unused[0] or "base_layer" in unused[0]
            else "correct text_config.num_hidden_layers in config.json, or download the model again"
        )
        raise SubjectError(
            f"subject.model: the model of {name!r} has no place for the weights {unused[0]!r}"
            f"{_more(len(unused))}; {remedy}"
        )


def _check_shapes(name: str, model: Any, mismatched: Any) -> None:
    if not mismatched:
        return
    # Embeddings first: they name the vocabulary.
    key, stored, expected = min(mismatched, key=lambda one: ("embed_tokens" not in one[0], one[0]))
    stored, expected = tuple(stored), tuple(expected)
    wrong = [size for size, true in zip(expected, stored, strict=False) if size != true]
    fields = [field for size in wrong[:1] for field in _fields(model.config.to_dict(), size)]
    named = f" ({', '.join(fields[:3])})" if fields else ""
    raise SubjectError(
        f"subject.model: config.json of {name!r} does not match its weights: {key!r} has the shape "
        f"{list(stored)}, and config.json{named} gives {list(expected)}; correct config.json or "
        "download the model again"
    )


def _fields(config: Mapping[str, Any], value: int, path: str = "") -> Iterator[str]:
    """Yield the fields of a configuration that hold `value`, such as "text_config.vocab_size 9"."""
    for name, one in config.items():
        if isinstance(one, Mapping):
            yield from _fields(one, value, f"{path}{name}.")
        elif type(one) is int and one == value:
            yield f"{path}{name} {value}"


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""
