"""Small random configurations and processors of any type, from transformers' own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers as hf
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from neuron_atlas.tasks.subject.processor import without_video
from tests.families.building import Build, Markup

_SPARE = tuple(f"<|spare_{number}|>" for number in range(10))
"""Special tokens for ids of a configuration that no sample uses, such as those of audio."""

_ANY = {
    "num_hidden_layers": 2,
    "num_layers": 2,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_TEXT = {
    **_ANY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "sliding_window": 16,
    "query_pre_attn_scalar": 8,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "layer_types": None,
}

_VISION = {
    **_ANY,
    "hidden_size": 16,
    "embed_dim": 16,
    "intermediate_size": 24,
    "depth": 2,
    "num_attention_heads": 2,
    "num_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "image_size": 32,
    "patch_size": 4,
    "out_hidden_size": 32,
    "projection_dim": 16,
    "projector_hidden_size": 32,
    "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [0],
    "window_size": 16,
    "vision_use_head": False,
    "num_position_embeddings": 64,
    "mlp_ratio": 2,
}


def shape(
    kind: str,
    markup: Markup,
    named: Mapping[str, str],
    *,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    parts: tuple[str, str] = ("", ""),
    tokens: tuple[str, ...] = (),
) -> Build:
    """Return how to build a small instance of a model type.

    named, tokens: as of Build; the first of `named` is the placeholder of image features. text,
    vision, config: what differs from the small default in each part of the configuration; a token
    in config stands for its id.
    processor, images: arguments of the processor and of its image processor. parts: names of their
    classes, where transformers' tables name none.
    """

    def model(ids: Mapping[str, int], words: int) -> Any:
        made = small_config(kind, ids, words, next(iter(named.values())), text, vision, config)
        return AutoModelForImageTextToText.from_config(made)

    def make_processor(tokenizer: Any, template: str) -> Any:
        classes = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {}
        image_class = parts[1] or classes.get("pil") or classes["torchvision"]
        family = getattr(hf, parts[0] or PROCESSOR_MAPPING_NAMES[kind])
        names = list(family.get_attributes())
        made = {"image_processor": getattr(hf, image_class)(**(images or {}))}
        arguments = {name: made.get(name) for name in names} | {"tokenizer": tokenizer}
        made = without_video(family)(**arguments, **(processor or {}))
        made.chat_template = template
        return made

    return Build(markup, model, make_processor, named, (*tokens, *_SPARE))


def small_config(
    kind: str,
    ids: Mapping[str, int],
    words: int,
    placeholder: str,
    text: Mapping[str, Any] | None,
    vision: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
) -> Any:
    """Return a small configuration of a model type. ids, words: of the tokenizer."""
    exact = {"text": text or {}, "vision": vision or {}}
    small = {
        "text": {
            **_TEXT,
            "vocab_size": words,
            "vocab_size_per_layer_input": words,
            **exact["text"],
        },
        "vision": {**_VISION, **exact["vision"]},
    }
    fields = _shrunk(CONFIG_MAPPING[kind]().to_dict(), small, exact, "text")
    spare = (ids[token] for token in _SPARE)
    for name, value in fields.items():
        is_id = name.endswith(("token_id", "token_index")) and name not in _ANY
        if is_id and isinstance(value, int) and value >= words:
            fields[name] = next(spare)
    for name in ("image_token_id", "image_token_index"):
        if name in fields:
            fields[name] = ids[placeholder]
    given = {
        name: ids.get(value, value) if isinstance(value, str) else value
        for name, value in (config or {}).items()
    }
    return CONFIG_MAPPING[kind](**fields | given)


def _shrunk(
    fields: Mapping[str, Any], small: Mapping[str, Mapping], exact: Mapping[str, Mapping], part: str
) -> dict[str, Any]:
    made = {}
    for name, value in fields.items():
        if isinstance(value, dict) and "model_type" in value:
            inner = "text" if "text" in name or "language" in name else "vision"
            made[name] = _shrunk(value, small, exact, inner) | dict(exact[inner])
        elif name in small[part] and (value is not None or name == "pad_token_id"):
            made[name] = small[part][name]
        elif name not in ("dtype", "transformers_version"):
            made[name] = value
    return made
